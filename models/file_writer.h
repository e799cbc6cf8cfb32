// The one way this project writes a file: temporary name beside the target, fdatasync, rename, fsync of
// the directory. A reader sees the old file or the whole new one, never a part.
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
  explicit FileWriter(const std::string& path);  // creates PATH.tmp-PID
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::span<const uint8_t> bytes);
  void write(std::string_view text);
  uint64_t offset() const { return offset_; }
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
  uint64_t offset_ = 0;
  bool committed_ = false;
};

// The whole text as one atomic file.
void write_file(const std::string& path, std::string_view text);

}  // namespace crumb::models
