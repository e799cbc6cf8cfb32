// What a well-formed head may ask of us; for connection.cpp and its tests.
#pragma once
#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>
#include <string>

namespace crumb::serve {

using HttpHead = boost::beast::http::request_header<>;

struct HeadVerdict {
  int status = 0;  // 0: lawful
  std::string cause = {};
};

// Two readings of one message are refused (request smuggling: lengths that differ, length and
// chunks, codings that are not just chunked), and so are bodies that are not plain bytes, an
// HTTP/1.1 request without exactly one Host, and targets that are no path.
HeadVerdict judge_head(const HttpHead& head);
bool wants_continue(const HttpHead& head);

}  // namespace crumb::serve
