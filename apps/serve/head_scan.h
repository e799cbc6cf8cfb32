// Finds the end of a request's head, byte by byte, and refuses early what can be no request. What
// the head says is Beast's to parse.
#pragma once
#include <cstdint>
#include <string_view>

#include "apps/serve/limits.h"

namespace crumb::serve {

class HeadScan {
 public:
  explicit HeadScan(const Limits& limits) : limits_(limits) {}

  enum class State : uint8_t { kMore, kComplete, kRefused };
  // Takes bytes from the front of `bytes` up to the head's end; `taken` is how many.
  State push(std::string_view bytes, std::size_t& taken);

  // Why it was refused.
  int status() const { return status_; }
  const char* reason() const { return reason_; }
  int64_t size() const { return size_; }  // bytes of the head so far

 private:
  State refuse(int status, const char* reason);
  State take(char c);
  State end_line();

  const Limits& limits_;
  int64_t size_ = 0, line_ = 0, lines_ = 0;  // line_: bytes of this line
  bool return_ = false;                      // the last byte was a carriage return
  int status_ = 0;
  const char* reason_ = "";
};

}  // namespace crumb::serve
