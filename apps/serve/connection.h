// One client's connection; for http_server.cpp only. Everything runs on the loop's thread but the
// functions of Exchange, which post to it.
#pragma once
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <new>
#include <optional>
#include <string>

#include "apps/serve/head_scan.h"
#include "apps/serve/http_server.h"

namespace crumb::serve {

class Connection;

// What all connections share.
struct Shared {
  boost::asio::io_context loop{1};
  HttpServerOptions options;
  HttpHandler handler;
  bool draining = false;
  std::function<void(Connection&)> on_closed;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, Shared& shared);
  void start();
  // Answers `status` to whatever comes and closes.
  void turn_away(int status);
  // Closes unless a request is being answered; then after it.
  void drain();
  void abandon() { close(); }
  // Runs what happens to this connection; without memory for it the answer is 503, if none has
  // begun.
  template <class Action>
  void guarded(const Action& action) {
    try {
      action();
    } catch (const std::bad_alloc&) {
      without_memory();
    }
  }
  const std::string& peer() const { return peer_; }
  bool loopback() const { return loopback_; }

 private:
  friend class ConnectionExchange;
  enum class Phase : uint8_t { kIdle, kHead, kBody, kAnswer, kLinger, kClosed };
  using Clock = std::chrono::steady_clock;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void read();
  void on_read(const boost::system::error_code& error, std::size_t n);
  void advance();
  void scan_head();
  void begin_body();
  void feed_body();
  void dispatch();
  void next_request();

  void refuse(int status, const std::string& cause);
  void refuse_length();
  void without_memory();
  void send_head(const HttpResponse& response, std::optional<std::size_t> length);
  void send(std::string bytes);
  void flush();
  void on_written(const boost::system::error_code& error, std::size_t n);
  void answered();
  void leave();  // the client is gone, or has to go
  void close();

  void set_deadline(double seconds);
  void tick();
  bool overdue(Clock::time_point now);
  bool forgotten();

  // Of Exchange, on the loop; `serial` is the request they belong to.
  void respond(uint64_t serial, HttpResponse response);
  void start_stream(uint64_t serial, HttpResponse head);
  void write_stream(uint64_t serial, std::string piece);
  void finish_stream(uint64_t serial, bool complete);

  Shared& shared_;
  const Limits& limits_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  std::string peer_;
  bool loopback_ = false;

  Phase phase_ = Phase::kIdle;
  std::array<char, 16 << 10> incoming_;  // where a read that is under way writes
  std::string input_;                    // read and not yet used
  std::size_t scanned_ = 0;              // of input_, by scan_
  bool reading_ = false;
  std::optional<HeadScan> scan_;
  std::optional<Parser> parser_;
  Clock::time_point deadline_, body_started_;
  int64_t body_seen_ = 0;

  std::shared_ptr<class ConnectionExchange> exchange_;
  uint64_t serial_ = 0;
  int64_t requests_ = 0;
  bool keep_alive_ = false, chunked_ = false, http10_ = false, head_only_ = false;
  bool streaming_ = false, complete_ = false, alone_ = false;
  AccessLogEntry entry_;
  Clock::time_point request_started_, progress_;  // progress_: of sending

  std::deque<std::string> out_;
  std::size_t out_at_ = 0;  // bytes of out_.front() already sent
  bool writing_ = false;
};

}  // namespace crumb::serve
