// The end of a head is found however its bytes are cut; what is no lawful request is refused.
#include <gtest/gtest.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <string>

#include "apps/serve/head_policy.h"
#include "apps/serve/head_scan.h"

namespace crumb::serve {
namespace {

namespace http = boost::beast::http;
const Limits kLimits;

struct Seen {
  HeadScan::State state;
  std::size_t size;
  int status;
};

Seen scan(const std::string& bytes, std::size_t piece) {
  HeadScan scan(kLimits);
  std::size_t at = 0;
  auto state = HeadScan::State::kMore;
  while (at < bytes.size() && state == HeadScan::State::kMore) {
    std::size_t taken = 0;
    state = scan.push(std::string_view(bytes).substr(at, piece), taken);
    at += taken;
  }
  return {state, at, scan.status()};
}

TEST(HeadScan, FindsTheEndHoweverTheBytesAreCut) {
  const std::string head = "GET /x HTTP/1.1\r\nHost: a\r\nB:\tc \xC3\xA9\r\n\r\n";
  for (std::size_t piece = 1; piece <= head.size() + 3; ++piece) {
    const Seen seen = scan(head + "body\r\n", piece);
    EXPECT_EQ(seen.state, HeadScan::State::kComplete) << piece;
    EXPECT_EQ(seen.size, head.size()) << piece;
  }
  EXPECT_EQ(scan(head.substr(0, head.size() - 1), 5).state, HeadScan::State::kMore);
}

int refused(const std::string& bytes) {
  const Seen whole = scan(bytes, bytes.size()), cut = scan(bytes, 1);
  EXPECT_EQ(whole.status, cut.status);
  return whole.state == HeadScan::State::kRefused ? whole.status : 0;
}

TEST(HeadScan, RefusesWhatIsNoHead) {
  EXPECT_EQ(refused("\x16\x03\x01\x02"), 400) << "TLS";
  EXPECT_EQ(refused("get / HTTP/1.1\r\n"), 400);
  EXPECT_EQ(refused("\r\nGET / HTTP/1.1\r\n"), 400);
  EXPECT_EQ(refused("GET / HTTP/1.1\nHost: a\n\n"), 400) << "bare line feeds";
  EXPECT_EQ(refused("GET / HTTP/1.1\rHost: a\r\n"), 400);
  EXPECT_EQ(refused(std::string("GET /\0 HTTP/1.1\r\n", 17)), 400);
  EXPECT_EQ(refused("GET /\xC3\xA9 HTTP/1.1\r\n"), 400);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"), 400) << "a folded field";
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nA: \x7F\r\n"), 400);
}

TEST(HeadScan, Limits) {
  const auto line = [](std::size_t n) { return "GET /" + std::string(n - 14, 'a') + " HTTP/1.1"; };
  EXPECT_EQ(refused(line(8192) + "\r\n\r\n"), 0);
  EXPECT_EQ(refused(line(8193) + "\r\n\r\n"), 414);
  std::string fields = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 64; ++i) fields += "A: b\r\n";
  EXPECT_EQ(refused(fields + "\r\n"), 0);
  EXPECT_EQ(refused(fields + "A: b\r\n\r\n"), 431);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nA: " + std::string(16384, 'a')), 431);
}

// The verdict over what Beast parsed; 400 too if Beast itself refuses.
int judged(const std::string& fields, const std::string& line = "POST /x HTTP/1.1") {
  const std::string head = line + "\r\n" + fields + "\r\n";
  http::request_parser<http::string_body> parser;
  boost::system::error_code error;
  parser.put(boost::asio::buffer(head), error);
  if (error && error != http::error::need_more) return 400;
  if (!parser.is_header_done()) return 400;
  return judge_head(parser.get()).status;
}

TEST(HeadPolicy, OneReadingOrNone) {
  EXPECT_EQ(judged("Host: a\r\nContent-Length: 5\r\n"), 0);
  EXPECT_EQ(judged("Host: a\r\nTransfer-Encoding: Chunked\r\n"), 0);
  EXPECT_EQ(judged("Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n"), 400);
  EXPECT_EQ(judged("Host: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n"), 400);
  EXPECT_EQ(judged("Host: a\r\nContent-Length: 5, 5\r\n"), 400);
  for (const char* length : {"-1", "+5", "0x5", "", "18446744073709551616", "5 5"})
    EXPECT_EQ(judged("Host: a\r\nContent-Length: " + std::string(length) + "\r\n"), 400) << length;
  EXPECT_EQ(judged("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400);
  EXPECT_EQ(judged("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400);
  EXPECT_EQ(judged("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400);
  EXPECT_EQ(judged("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"), 400);
  EXPECT_EQ(judged("Host: a\r\nTransfer-Encoding: xchunked\r\n"), 400);
  EXPECT_EQ(judged("Host: a\r\nContent-Length : 5\r\n"), 400);
  EXPECT_EQ(judged("Transfer-Encoding: chunked\r\n", "POST /x HTTP/1.0"), 400);
  EXPECT_EQ(judged("Host: a\r\nContent-Encoding: gzip\r\n"), 415);
  EXPECT_EQ(judged("Host: a\r\nExpect: tea\r\n"), 417);
  EXPECT_EQ(judged(""), 400);
  EXPECT_EQ(judged("", "GET / HTTP/1.0"), 0);
  EXPECT_EQ(judged("Host: a\r\nHost: a\r\n"), 400);
  EXPECT_EQ(judged("Host: a\r\n", "GET http://a/ HTTP/1.1"), 400);
  EXPECT_EQ(judged("Host: a\r\n", "CONNECT a:1 HTTP/1.1"), 400);
  EXPECT_EQ(judged("Host: a\r\n", "OPTIONS * HTTP/1.1"), 0);
  EXPECT_EQ(judged("Host: a\r\n", "GET / HTTP/3.7"), 400);
}

}  // namespace
}  // namespace crumb::serve
