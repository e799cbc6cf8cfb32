#include "models/file_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "models/errors.h"

namespace crumb::models {
namespace {

constexpr int kMaxStaleFiles = 100;

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::span<const uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

FileWriter::FileWriter(const std::string& path) : path_(path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    throw IoError("cannot write file (" + path + ": expected a new or regular file, found " +
                  (S_ISDIR(status.st_mode) ? "a directory" : "a device, pipe or socket") + ")");
  const std::string base = path + ".tmp-" + std::to_string(::getpid());
  for (int attempt = 0; attempt < kMaxStaleFiles; ++attempt) {
    temporary_ = attempt == 0 ? base : base + "." + std::to_string(attempt);
    fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0 || errno != EEXIST) break;
  }
  if (fd_ < 0) fail("create file");
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void FileWriter::fail(const char* action) const {
  throw IoError(
      std::string("cannot ") + action + " (" + path_ + ": " + std::strerror(errno) + ")",
      errno == ENOSPC || errno == EDQUOT ? "free some space and run the command again" : "");
}

void FileWriter::write_at(uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;  // cannot happen on a regular file; never loop on it
    if (n <= 0) fail("write file");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

void FileWriter::write(std::span<const uint8_t> bytes) {
  if (committed_) throw std::logic_error("FileWriter: write after commit");
  write_at(offset_, bytes);
  offset_ += bytes.size();
}

void FileWriter::write(std::string_view text) { write(as_bytes(text)); }

void FileWriter::overwrite(uint64_t offset, std::span<const uint8_t> bytes) {
  if (committed_ || offset > offset_ || bytes.size() > offset_ - offset)
    throw std::logic_error("FileWriter: overwrite outside the written part");
  write_at(offset, bytes);
}

void FileWriter::sync_directory() const {
  const int fd = ::open(directory_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail("open the directory of");
  const bool ok = ::fsync(fd) == 0;
  const int reason = errno;
  ::close(fd);
  errno = reason;
  if (!ok) fail("flush the directory of");
}

void FileWriter::commit() {
  if (committed_) throw std::logic_error("FileWriter: commit called twice");
  // A failed flush may have dropped the data for good: it is fatal and never tried again.
  if (::fdatasync(fd_) != 0) fail("flush file");
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0) fail("close file");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename the temporary file to");
  committed_ = true;
  sync_directory();
}

void write_file(const std::string& path, std::string_view text) {
  FileWriter file(path);
  file.write(text);
  file.commit();
}

}  // namespace crumb::models
