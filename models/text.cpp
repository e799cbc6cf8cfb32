#include "models/text.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "models/errors.h"

namespace crumb::models {

std::string printable(std::string_view text, std::size_t max_bytes) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, max_bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  if (text.size() > max_bytes) out += "...";
  return out + "'";
}

bool valid_utf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < static_cast<std::size_t>(more))
      return false;
    uint32_t value = lead & (0x3fu >> more);
    for (int j = 0; j < more; ++j) {
      const auto next = static_cast<unsigned char>(text[i++]);
      if ((next & 0xc0) != 0x80) return false;
      value = value << 6 | (next & 0x3fu);
    }
    constexpr uint32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
    if (value < kSmallest[more] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
      return false;
  }
  return true;
}

std::string read_text(const std::string& path, int64_t limit) {
  const bool is_stdin = path == "-";
  const int fd = is_stdin ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const std::string name = is_stdin ? "standard input" : path;
  if (fd < 0) throw IoError("cannot open " + name + ": " + strerror(errno));
  std::string text;
  std::vector<char> block(1 << 16);
  int failure = 0;
  while (static_cast<int64_t>(text.size()) <= limit) {
    const ssize_t n = read(fd, block.data(), block.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) failure = errno;
    if (n <= 0) break;
    text.append(block.data(), static_cast<std::size_t>(n));
  }
  if (!is_stdin) close(fd);
  if (failure != 0) throw IoError("cannot read " + name + ": " + strerror(failure));
  if (static_cast<int64_t>(text.size()) > limit)
    throw Error(ExitCode::kMemory, "input too long (" + name + ": expected at most " +
                                       std::to_string(limit) + " bytes)");
  return text;
}

}  // namespace crumb::models
