#include "apps/serve/connection.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <utility>

#include "apps/serve/connection_exchange.h"
#include "apps/serve/head_policy.h"

namespace crumb::serve {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t kMaxAhead = 64 << 10;  // bytes read before they can be used
constexpr std::size_t kMaxChunkLine = 8 << 10;
constexpr double kLingerSeconds = 1;
constexpr double kTickSeconds = 1;  // while a body or an answer is under way
constexpr double kFreeBodySeconds = 5;
constexpr double kMinBodyRate = 1024;   // bytes a second after these
constexpr int kSendBuffer = 128 << 10;  // the system's; ours stands before it

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

bool has_bare_line_feed(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] == '\n' && (i == 0 || text[i - 1] != '\r')) return true;
  return false;
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, Shared& shared)
    : shared_(shared),
      limits_(shared.options.limits),
      socket_(std::move(socket)),
      timer_(shared.loop),
      request_started_(Clock::now()) {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.set_option(asio::socket_base::send_buffer_size(kSendBuffer), ignored);
  if (const auto end = socket_.remote_endpoint(ignored); !ignored) {
    peer_ = end.address().to_string();
    loopback_ = end.address().is_loopback();
  }
}

void Connection::start() {
  scan_.emplace(limits_);
  set_deadline(static_cast<double>(limits_.header_seconds));
  tick();
  read();
}

void Connection::turn_away(int status) {
  refuse(status, "too many connections");
  tick();
  read();
}

void Connection::drain() {
  keep_alive_ = false;
  if (phase_ == Phase::kIdle) close();
}

// ---- reading

void Connection::read() {
  if (reading_ || phase_ == Phase::kClosed || input_.size() >= kMaxAhead) return;
  reading_ = true;
  socket_.async_read_some(asio::buffer(incoming_),
                          [self = shared_from_this()](const error_code& error, std::size_t n) {
                            self->guarded([&] { self->on_read(error, n); });
                          });
}

void Connection::on_read(const error_code& error, std::size_t n) {
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) {
    // A client may close its side and still wait for an answer that is already written.
    if (error == asio::error::eof && phase_ == Phase::kAnswer && complete_)
      keep_alive_ = false;
    else
      leave();
    return;
  }
  // Behind the last request nothing counts but that the client is there.
  if (phase_ == Phase::kLinger || (phase_ == Phase::kAnswer && !keep_alive_)) return read();
  input_.append(incoming_.data(), n);
  if (phase_ != Phase::kAnswer) advance();
  read();
}

// As far as the bytes at hand go.
void Connection::advance() {
  if (phase_ == Phase::kIdle && !input_.empty()) {
    phase_ = Phase::kHead;
    request_started_ = Clock::now();
    entry_ = {peer_, "", "", 0, 0, 0};
    set_deadline(static_cast<double>(limits_.header_seconds));
  }
  if (phase_ == Phase::kHead) scan_head();
  if (phase_ == Phase::kBody) feed_body();
}

void Connection::scan_head() {
  std::size_t taken = 0;
  const auto state = scan_->push(std::string_view(input_).substr(scanned_), taken);
  scanned_ += taken;
  if (state == HeadScan::State::kRefused) return refuse(scan_->status(), scan_->reason());
  if (state == HeadScan::State::kMore) return;
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(scanned_) + 1);
  parser_->body_limit(static_cast<uint64_t>(limits_.body_bytes));
  error_code error;
  parser_->put(asio::buffer(input_.data(), scanned_), error);
  input_.erase(0, scanned_);
  scanned_ = 0;
  if (error == http::error::bad_version) return refuse(505, "the version is not HTTP/1.0 or 1.1");
  if (error == http::error::body_limit) return refuse_length();
  if (error && error != http::error::need_more) return refuse(400, error.message());
  if (!parser_->is_header_done()) return refuse(400, "the head is malformed");
  begin_body();
}

void Connection::begin_body() {
  const auto& head = parser_->get();
  entry_.method = std::string(head.method_string());
  entry_.path = std::string(head.target().substr(0, head.target().find('?')));
  http10_ = head.version() == 10;
  head_only_ = head.method() == http::verb::head;
  ++requests_;
  keep_alive_ =
      parser_->keep_alive() && !shared_.draining && requests_ < limits_.requests_per_connection;
  if (const HeadVerdict verdict = judge_head(head); verdict.status != 0)
    return refuse(verdict.status, verdict.cause);
  if (!parser_->is_done() && wants_continue(head)) send("HTTP/1.1 100 Continue\r\n\r\n");
  parser_->eager(true);
  phase_ = Phase::kBody;
  body_started_ = Clock::now();
  body_seen_ = 0;
  set_deadline(kTickSeconds);
}

void Connection::feed_body() {
  while (!parser_->is_done() && !input_.empty()) {
    error_code error;
    const std::size_t used = parser_->put(asio::buffer(input_), error);
    input_.erase(0, used);
    body_seen_ += static_cast<int64_t>(used);
    if (error == http::error::body_limit)
      return refuse(
          413, fmt::format("the body is too long (expected at most {} bytes)", limits_.body_bytes));
    if (error && error != http::error::need_more) return refuse(400, error.message());
    if (error == http::error::need_more || used == 0) break;
  }
  if (parser_->is_done()) return dispatch();
  // What is left of chunks is a line that has not ended: Beast would wait for its carriage return.
  if (parser_->chunked() && (input_.size() > kMaxChunkLine || has_bare_line_feed(input_)))
    refuse(400, "a chunk's line is malformed");
}

void Connection::dispatch() {
  phase_ = Phase::kAnswer;
  progress_ = Clock::now();
  set_deadline(kTickSeconds);
  const auto& message = parser_->get();
  HttpRequest request;
  request.method = entry_.method;
  request.path = entry_.path;
  request.peer = peer_;
  for (const auto& field : message) {
    std::string name(field.name_string());
    for (char& c : name)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    request.fields.emplace_back(std::move(name), std::string(field.value()));
  }
  request.body = std::move(parser_->get().body());
  parser_.reset();
  exchange_ = std::make_shared<ConnectionExchange>(shared_.loop, weak_from_this(), ++serial_);
  try {
    shared_.handler(exchange_, std::move(request));
  } catch (const std::bad_alloc&) {
    HttpResponse response;
    response.status = 503;
    response.fields.emplace_back("retry-after", "1");
    response.body = shared_.options.error_body(503, "out of memory");
    respond(serial_, std::move(response));
  } catch (const std::exception& error) {
    HttpResponse response;
    response.status = 500;
    response.body = shared_.options.error_body(500, error.what());
    respond(serial_, std::move(response));
  }
}

void Connection::next_request() {
  exchange_.reset();
  scan_.emplace(limits_);
  streaming_ = complete_ = false;
  phase_ = Phase::kIdle;
  set_deadline(static_cast<double>(limits_.idle_seconds));
  advance();
  read();
}

// ---- answering

void Connection::refuse(int status, const std::string& cause) {
  phase_ = Phase::kAnswer;
  keep_alive_ = false;
  exchange_.reset();
  parser_.reset();
  if (entry_.method.empty()) entry_ = {peer_, "-", "-", 0, 0, 0};  // it did not get so far
  set_deadline(kTickSeconds);
  HttpResponse response;
  response.status = status;
  if (status == 503) response.fields.emplace_back("retry-after", "1");
  response.body = shared_.options.error_body(status, cause);
  respond(++serial_, std::move(response));
}

void Connection::refuse_length() {
  refuse(413, fmt::format("the body is too long (expected at most {} bytes)", limits_.body_bytes));
}

// What was read so far is given up for it.
void Connection::without_memory() {
  if (phase_ == Phase::kClosed) return;
  const bool begun = phase_ == Phase::kLinger || streaming_ || complete_ || !out_.empty();
  input_ = std::string();
  parser_.reset();
  if (begun) return close();
  try {
    refuse(503, "out of memory");
    read();
  } catch (const std::bad_alloc&) {
    close();
  }
}

void Connection::send_head(const HttpResponse& response, std::optional<std::size_t> length) {
  entry_.status = response.status;
  chunked_ = !length && !http10_;
  if (!length && http10_) keep_alive_ = false;
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nserver: crumb\r\n", response.status,
                                 reason_phrase(response.status));
  if (response.status != 204) {
    head += fmt::format("content-type: {}\r\nx-content-type-options: nosniff\r\n",
                        response.content_type);
    if (length) head += fmt::format("content-length: {}\r\n", *length);
    if (chunked_) head += "transfer-encoding: chunked\r\n";
  }
  for (const auto& [name, value] : response.fields) head += fmt::format("{}: {}\r\n", name, value);
  head += keep_alive_ ? (http10_ ? "connection: keep-alive\r\n\r\n" : "\r\n")
                      : "connection: close\r\n\r\n";
  send(std::move(head));
}

void Connection::respond(uint64_t serial, HttpResponse response) {
  if (serial != serial_ || phase_ != Phase::kAnswer || streaming_ || complete_) return;
  send_head(response, response.body.size());
  entry_.bytes = static_cast<int64_t>(response.body.size());
  complete_ = true;
  if (!head_only_ && response.status != 204) send(std::move(response.body));
  flush();
}

void Connection::start_stream(uint64_t serial, HttpResponse head) {
  if (serial != serial_ || phase_ != Phase::kAnswer || streaming_ || complete_) return;
  streaming_ = true;
  send_head(head, std::nullopt);
  flush();
}

void Connection::write_stream(uint64_t serial, std::string piece) {
  if (serial != serial_ || phase_ != Phase::kAnswer || !streaming_ || complete_) return;
  const auto counted = static_cast<int64_t>(piece.size());
  entry_.bytes += counted;
  if (exchange_) exchange_->add_unsent(-counted);  // send() counts it with its frame
  if (!piece.empty()) send(chunked_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : piece);
  flush();
}

void Connection::finish_stream(uint64_t serial, bool complete) {
  if (serial != serial_ || phase_ != Phase::kAnswer || !streaming_ || complete_) return;
  complete_ = true;
  if (!complete) keep_alive_ = false;
  if (complete && chunked_) send("0\r\n\r\n");
  flush();
}

void Connection::send(std::string bytes) {
  if (bytes.empty()) return;
  if (out_.empty()) progress_ = Clock::now();
  if (exchange_) exchange_->add_unsent(static_cast<int64_t>(bytes.size()));
  out_.push_back(std::move(bytes));
  flush();
}

void Connection::flush() {
  if (writing_ || phase_ == Phase::kClosed) return;
  if (out_.empty()) {
    if (complete_ && phase_ == Phase::kAnswer) answered();
    return;
  }
  writing_ = true;
  const std::string& front = out_.front();
  socket_.async_write_some(asio::buffer(front.data() + out_at_, front.size() - out_at_),
                           [self = shared_from_this()](const error_code& error, std::size_t n) {
                             self->guarded([&] { self->on_written(error, n); });
                           });
}

void Connection::on_written(const error_code& error, std::size_t n) {
  writing_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) {
    leave();
    return;
  }
  progress_ = Clock::now();
  out_at_ += n;
  if (exchange_) exchange_->add_unsent(-static_cast<int64_t>(n));
  if (out_at_ == out_.front().size()) {
    out_.pop_front();
    out_at_ = 0;
  }
  flush();
}

// The last byte of an answer has gone out.
void Connection::answered() {
  entry_.seconds = seconds_between(request_started_, Clock::now());
  if (shared_.options.log) shared_.options.log(entry_);
  if (keep_alive_) return next_request();
  // What the client still sends is read and dropped for a moment: closing over unread bytes would
  // reset the connection and could take the answer with it.
  phase_ = Phase::kLinger;
  exchange_.reset();
  input_.clear();
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  set_deadline(kLingerSeconds);
  read();
}

void Connection::leave() {
  if (phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kAnswer && shared_.options.log) {
    entry_.seconds = seconds_between(request_started_, Clock::now());
    if (!complete_) entry_.status = 0;
    shared_.options.log(entry_);
  }
  close();
}

void Connection::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
  out_.clear();
  if (exchange_) exchange_->leave();
  exchange_.reset();
  shared_.on_closed(*this);
}

// ---- time

void Connection::set_deadline(double seconds) {
  deadline_ = Clock::now() +
              std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  timer_.expires_at(deadline_);  // the wait that is under way ends as cancelled
  timer_.async_wait([weak = weak_from_this()](const error_code& error) {
    if (const auto self = weak.lock(); self && !error) self->guarded([&] { self->tick(); });
  });
}

void Connection::tick() {
  const auto now = Clock::now();
  if (phase_ == Phase::kClosed || now < deadline_) return;
  switch (phase_) {
    case Phase::kHead:
      return refuse(408, "the head did not come in time");
    case Phase::kBody:
      if (overdue(now)) return refuse(408, "the body did not come in time");
      break;
    case Phase::kAnswer:
      if (overdue(now)) return leave();
      if (forgotten()) return streaming_ ? leave() : refuse(503, "out of memory");
      break;
    default:
      return close();
  }
  set_deadline(kTickSeconds);
}

// Whoever was to answer has ended without: memory was missing even for the error. What he may have
// sent at his end is on its way for less than a tick.
bool Connection::forgotten() {
  if (complete_ || !exchange_ || exchange_.use_count() > 1) {
    alone_ = false;
    return false;
  }
  return std::exchange(alone_, true);
}

bool Connection::overdue(Clock::time_point now) {
  if (phase_ == Phase::kBody) {
    const double passed = seconds_between(body_started_, now);
    return passed > static_cast<double>(limits_.body_seconds) ||
           (passed > kFreeBodySeconds &&
            static_cast<double>(body_seen_) < (passed - kFreeBodySeconds) * kMinBodyRate);
  }
  const double silent = seconds_between(progress_, now);
  if (!out_.empty()) return silent > static_cast<double>(limits_.send_seconds);
  if (streaming_ && !complete_ && silent > static_cast<double>(limits_.ping_seconds)) {
    constexpr std::string_view kPing = ": ping\n\n";
    send(chunked_ ? fmt::format("{:x}\r\n{}\r\n", kPing.size(), kPing) : std::string(kPing));
  }
  return false;
}

}  // namespace crumb::serve
