// A whole file, read-only in memory.
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace crumb::models {

// Maps `path`. Throws IoError (open, stat, map) or FormatError (not a regular file). Movable, not
// copyable; the bytes live as long as the object. An empty file gives an empty span.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  // Bytes that lie in memory already and outlive this, as a file that messages call `name`.
  static MappedFile view(std::span<const uint8_t> bytes, std::string name);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // The whole pages inside `part` (of bytes()) are not needed soon: they no longer count as this
  // process's memory, and come back from the file when read.
  void release(std::span<const uint8_t> part) const noexcept;

 private:
  const uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  bool mapped_ = false;  // by this object
  std::string path_;
};

}  // namespace crumb::models
