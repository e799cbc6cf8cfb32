#include "quant/part_files.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "models/errors.h"
#include "models/file_writer.h"
#include "models/mapped_file.h"
#include "quant/bytes.h"

namespace crumb::quant {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kChecksumBytes = 8;

void tell(const NoticeFn& notice, const std::string& line) {
  if (notice) notice(line);
}

// Parts of another recipe, and what killed processes left of parts being written.
void remove_others(const std::string& folder, const std::string& key, const NoticeFn& notice) {
  std::vector<fs::path> others;
  bool other_recipe = false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool temporary = name.find(".tmp-") != std::string::npos;
    if (name.starts_with(key) && !temporary) continue;
    others.push_back(entry.path());
    other_recipe = other_recipe || !temporary;
  }
  if (other_recipe)
    tell(notice, "the journal " + folder + " is of another source or recipe: starting over");
  for (const fs::path& path : others) fs::remove(path);
}

}  // namespace

PartFiles::PartFiles(std::string folder, std::string_view magic, const std::string& identity,
                     NoticeFn notice)
    : folder_(std::move(folder)),
      magic_(magic),
      key_(hex(hash_of(identity.data(), identity.size(), 0))),
      notice_(std::move(notice)) {
  try {
    fs::create_directories(folder_);
    remove_others(folder_, key_, notice_);
  } catch (const fs::filesystem_error& error) {
    throw IoError("cannot use the journal (" + folder_ + ": " + error.code().message() + ")");
  }
}

std::string PartFiles::path(int64_t part) const {
  return folder_ + "/" + key_ + "-" + std::to_string(part);
}

void PartFiles::save(int64_t part, std::string_view body) const {
  std::string bytes(magic_);
  add(bytes, static_cast<uint64_t>(part));
  bytes += body;
  add(bytes, hash_of(bytes.data(), bytes.size(), 0));
  models::write_file(path(part), bytes);
}

void PartFiles::read_file(int64_t part,
                          const std::function<void(models::ByteReader&)>& read) const {
  const models::MappedFile file(path(part));
  const auto bytes = file.bytes();
  models::ByteReader reader(bytes, file.path());
  reader.require_count(1, magic_.size() + kChecksumBytes, "journal");
  const auto body = bytes.first(bytes.size() - kChecksumBytes);
  models::ByteReader end(bytes.last(kChecksumBytes), file.path());
  if (end.read<uint64_t>("checksum") != hash_of(body.data(), body.size(), 0))
    reader.fail("checksum", "that of the bytes", "another");
  if (reader.text(magic_.size(), "magic") != magic_) reader.fail("magic", magic_, "other bytes");
  const auto found = reader.read<uint64_t>("part");
  if (found != static_cast<uint64_t>(part))
    reader.fail("part", std::to_string(part), std::to_string(found));
  read(reader);
}

bool PartFiles::load(int64_t part, const std::function<void(models::ByteReader&)>& read) const {
  std::error_code error;
  if (!fs::exists(path(part), error)) return false;
  try {
    read_file(part, read);
  } catch (const FormatError& damage) {
    tell(notice_, std::string(damage.what()) + ": this part is computed again");
    return false;
  }
  return true;
}

void PartFiles::remove() const {
  std::error_code error;  // what cannot be removed costs disk only
  fs::remove_all(folder_, error);
}

}  // namespace crumb::quant
