// What a long job has finished, on disk and in parts, so that a job that was killed goes on where
// it was.
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "models/byte_reader.h"

namespace crumb::quant {

// Lines for the user that are no errors: what was resumed, damped or repeated. May be empty.
using NoticeFn = std::function<void(const std::string&)>;

// A folder with one file a part, written atomically: FOLDER/KEY-PART, KEY = xxh3 of what the work
// depends on. Little-endian: 8 bytes of magic, u64 part, the body, u64 xxh3 of all before.
class PartFiles {
 public:
  // Creates `folder` if it is not there; files of other keys in it are removed, with a notice.
  // Throws IoError.
  PartFiles(std::string folder, std::string_view magic, const std::string& identity,
            NoticeFn notice);

  // Gives `read` the body; its values are those that were written. False if the part is not there,
  // or is damaged: then with a notice.
  bool load(int64_t part, const std::function<void(models::ByteReader&)>& read) const;
  // Throws IoError.
  void save(int64_t part, std::string_view body) const;
  // Removes the folder and what is in it.
  void remove() const;
  std::string path(int64_t part) const;

 private:
  void read_file(int64_t part, const std::function<void(models::ByteReader&)>& read) const;

  std::string folder_, magic_, key_;
  NoticeFn notice_;
};

// What add_array() of quant/bytes.h has written.
template <class T>
std::vector<T> read_array(models::ByteReader& reader, std::string_view what) {
  const auto size = reader.read<uint64_t>(what);
  const auto bytes = reader.take(size, what);
  std::vector<T> values(size / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

}  // namespace crumb::quant
