#include "apps/output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "apps/terminal.h"
#include "models/errors.h"
#include "tokenizer/utf8.h"

namespace crumb::apps {
namespace {

int64_t display_width(std::string_view text) {
  int64_t width = 0;
  for (const char c : text) width += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return width;
}

std::string pad(const std::string& cell, int64_t width, bool right) {
  const std::string space(static_cast<std::size_t>(width - display_width(cell)), ' ');
  return right ? space + cell : cell + space;
}

}  // namespace

void secure_standard_streams() {
  std::signal(SIGPIPE, SIG_IGN);
  for (const int fd : {0, 1, 2}) {
    if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // stdin opened for writing and stdout for reading: using them fails as a closed stream should.
    const int opened = open("/dev/null", fd == 1 ? O_RDONLY : O_WRONLY);
    if (opened >= 0 && opened != fd) {
      dup2(opened, fd);
      close(opened);
    }
  }
}

void write_stdout(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE) throw BrokenPipe{};
    if (n < 0) throw IoError("cannot write to standard output: " + std::string(strerror(errno)));
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

void write_stderr(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t n = write(STDERR_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

std::string one_line(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  return out;
}

void write_answer(std::string_view text) {
  if (!is_terminal(STDOUT_FILENO)) return write_stdout(text);
  std::string safe;
  for (std::size_t i = 0; i < text.size();) {
    const auto point = tokenizer::code_point_at(text, i);
    const bool control = (point.value < 0x20 && point.value != '\n' && point.value != '\t') ||
                         (point.value >= 0x7f && point.value < 0xa0);
    safe += control ? std::string_view("\xef\xbf\xbd")
                    : text.substr(i, static_cast<std::size_t>(point.length));
    i += static_cast<std::size_t>(point.length);
  }
  write_stdout(safe);
}

std::string to_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string human_bytes(double bytes) {
  if (bytes < 1e3) return fmt::format("{:.0f} B", bytes);
  if (bytes < 1e6) return fmt::format("{:.1f} KB", bytes / 1e3);
  if (bytes < 1e9) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.2f} GB", bytes / 1e9);
}

std::string human_seconds(double s) {
  const auto n = static_cast<int64_t>(s + 0.5);
  if (n >= 3600) return fmt::format("{}:{:02}:{:02}", n / 3600, n / 60 % 60, n % 60);
  return fmt::format("{}:{:02}", n / 60, n % 60);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Table::Table(std::vector<std::string> names) {
  for (auto& name : names) {
    right_.push_back(name.starts_with('>'));
    if (right_.back()) name.erase(0, 1);
  }
  rows_.push_back(std::move(names));
}

void Table::add(std::vector<std::string> cells) {
  cells.resize(right_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<int64_t> widths(right_.size(), 3);
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], display_width(row[i]));
  std::string out;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    for (std::size_t i = 0; i < right_.size(); ++i)
      out += "| " + pad(rows_[r][i], widths[i], right_[i]) + " ";
    out += "|\n";
    if (r != 0) continue;
    for (std::size_t i = 0; i < right_.size(); ++i)
      out +=
          "|" + std::string(static_cast<std::size_t>(widths[i]) + 1, '-') + (right_[i] ? ":" : "-");
    out += "|\n";
  }
  return out;
}

}  // namespace crumb::apps
