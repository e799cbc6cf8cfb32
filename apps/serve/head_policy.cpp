#include "apps/serve/head_policy.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/field.hpp>

namespace crumb::serve {
namespace {

namespace http = boost::beast::http;
using boost::beast::iequals;

bool all_digits(boost::beast::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

HeadVerdict judge_head(const HttpHead& head) {
  const auto hosts = head.count(http::field::host);
  if (hosts > 1 || (hosts == 0 && head.version() == 11))
    return {400, "exactly one Host field is needed"};
  const auto lengths = head.count(http::field::content_length);
  if (lengths > 1 || (lengths == 1 && !all_digits(head[http::field::content_length])))
    return {400, "the Content-Length is malformed"};
  if (const auto codings = head.count(http::field::transfer_encoding); codings > 0) {
    if (lengths > 0) return {400, "both Content-Length and Transfer-Encoding"};
    if (codings > 1 || !iequals(head[http::field::transfer_encoding], "chunked") ||
        head.version() != 11)
      return {400, "the Transfer-Encoding is not just chunked"};
  }
  if (const auto found = head.find(http::field::content_encoding);
      found != head.end() && !iequals(found->value(), "identity"))
    return {415, "the body must not be compressed"};
  if (const auto found = head.find(http::field::expect);
      found != head.end() && !iequals(found->value(), "100-continue"))
    return {417, "that expectation is not known"};
  const auto target = head.target();
  if (!target.starts_with('/') && !(head.method() == http::verb::options && target == "*"))
    return {400, "the target is no path"};
  return {};
}

bool wants_continue(const HttpHead& head) {
  return head.version() == 11 && head.find(http::field::expect) != head.end();
}

}  // namespace crumb::serve
