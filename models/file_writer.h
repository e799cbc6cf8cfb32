// The one way this project writes a file: temporary name beside the target, fdatasync, rename,
// fsync of the directory. A reader sees the old file or the whole new one, never a part.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace crumb::models {

// Every failing call is an IoError naming the file and the system's reason; the temporary file is
// removed by the destructor unless commit() returned. commit() may be called once.
class FileWriter {
 public:
  // Creates PATH.tmp-PID (PATH.tmp-PID.1 ... if a killed process left one behind). A target that
  // exists and is not a regular file is refused.
  explicit FileWriter(const std::string& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::span<const uint8_t> bytes);
  void write(std::string_view text);
  // Replaces bytes already written, at `offset`; throws std::logic_error past the end.
  void overwrite(uint64_t offset, std::span<const uint8_t> bytes);
  uint64_t offset() const { return offset_; }
  void commit();

 private:
  [[noreturn]] void fail(const char* action) const;
  void write_at(uint64_t offset, std::span<const uint8_t> bytes);
  void sync_directory() const;

  std::string path_, temporary_;
  int fd_ = -1;
  uint64_t offset_ = 0;
  bool committed_ = false;
};

// The whole text as one atomic file.
void write_file(const std::string& path, std::string_view text);

}  // namespace crumb::models
