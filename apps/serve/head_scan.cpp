#include "apps/serve/head_scan.h"

namespace crumb::serve {

HeadScan::State HeadScan::push(std::string_view bytes, std::size_t& taken) {
  State state = State::kMore;
  for (taken = 0; taken < bytes.size() && state == State::kMore;) state = take(bytes[taken++]);
  return state;
}

HeadScan::State HeadScan::refuse(int status, const char* reason) {
  status_ = status;
  reason_ = reason;
  return State::kRefused;
}

HeadScan::State HeadScan::take(char c) {
  ++size_;
  if (return_) {
    return_ = false;
    return c == '\n' ? end_line() : refuse(400, "a carriage return without a line feed");
  }
  if (c == '\n') return refuse(400, "a line feed without a carriage return");
  if (c == '\r') {
    return_ = true;
    return State::kMore;
  }
  ++line_;
  const auto byte = static_cast<unsigned char>(c);
  if ((byte < 0x20 && c != '\t') || byte == 0x7F) return refuse(400, "a control byte in the head");
  if (lines_ == 0) {
    // Methods are upper-case words: what is no HTTP (TLS, say) ends here at its first byte.
    if (line_ == 1 && (c < 'A' || c > 'Z')) return refuse(400, "not an HTTP request");
    if (byte >= 0x80) return refuse(400, "a byte that is not ASCII in the request line");
    if (line_ > limits_.request_line_bytes) return refuse(414, "the request line is too long");
  } else if (line_ == 1 && (c == ' ' || c == '\t')) {
    return refuse(400, "a header field continued on the next line");
  }
  if (size_ > limits_.header_bytes) return refuse(431, "the head is too long");
  return State::kMore;
}

HeadScan::State HeadScan::end_line() {
  if (line_ == 0) return lines_ > 0 ? State::kComplete : refuse(400, "an empty request line");
  line_ = 0;
  if (lines_++ > limits_.header_fields) return refuse(431, "too many header fields");
  return State::kMore;
}

}  // namespace crumb::serve
