#include "apps/serve/http_server.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <map>
#include <new>
#include <thread>
#include <unordered_map>

#include "apps/serve/connection.h"
#include "models/errors.h"

namespace crumb::serve {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Out of descriptors: the client in the queue cannot be accepted, and asking again at once would
// burn a core.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
constexpr auto kNoMemoryPause = std::chrono::milliseconds(10);
constexpr std::size_t kTurnedAway = 64;  // connections that are just being told so

}  // namespace

struct HttpServer::State {
  explicit State(HttpServerOptions options, HttpHandler handler) {
    shared.options = std::move(options);
    shared.handler = std::move(handler);
    shared.on_closed = [this](Connection& connection) { closed(connection); };
  }

  void listen();
  void accept();
  void take(tcp::socket socket);
  void closed(Connection& connection);
  void drain();
  int64_t of_peer(const std::string& peer) const {
    const auto found = per_peer.find(peer);
    return found == per_peer.end() ? 0 : found->second;
  }
  void stop_if_done() {
    if (shared.draining && open.empty()) shared.loop.stop();
  }

  Shared shared;
  tcp::acceptor acceptor{shared.loop};
  asio::steady_timer pause{shared.loop};
  asio::posix::stream_descriptor signals{shared.loop};
  std::function<void()> on_signal;
  struct Open {
    std::shared_ptr<Connection> connection;
    bool counted;  // false: turned away
  };
  std::unordered_map<Connection*, Open> open;
  std::map<std::string, int64_t> per_peer;
  int64_t counted = 0;
  bool accepting = false;

  void wait_signal();
};

void HttpServer::State::listen() {
  const auto& o = shared.options;
  error_code error;
  const auto address = asio::ip::make_address(o.address, error);
  if (error)
    throw Error(
        ExitCode::kUsage,
        "not an address (--host: expected an IPv4 or IPv6 address, found '" + o.address + "')");
  const tcp::endpoint endpoint(address, o.port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error)
    throw IoError("cannot listen on " + o.address + ":" + std::to_string(o.port) + " (" +
                      error.message() + ")",
                  "another program may use the port; --port N takes another one, 0 any");
}

void HttpServer::State::accept() {
  accepting = true;
  acceptor.async_accept([this](const error_code& error, tcp::socket socket) {
    accepting = false;  // what follows may throw: run() begins anew
    if (error == asio::error::operation_aborted || !acceptor.is_open()) return;
    if (error) {
      accepting = true;
      pause.expires_after(kAcceptPause);
      pause.async_wait([this](const error_code& cancelled) {
        if (!cancelled && acceptor.is_open()) accept();
      });
      return;
    }
    take(std::move(socket));
    accept();
  });
}

void HttpServer::State::take(tcp::socket socket) {
  const auto connection = std::make_shared<Connection>(std::move(socket), shared);
  const Limits& limits = shared.options.limits;
  const bool limited = !connection->loopback() || limits.count_loopback;
  const bool full = counted >= limits.connections ||
                    (limited && of_peer(connection->peer()) >= limits.connections_per_peer);
  if (full && open.size() >= static_cast<std::size_t>(counted) + kTurnedAway) return;
  open.emplace(connection.get(), Open{connection, !full});
  if (full) return connection->turn_away(503);
  ++counted;
  if (limited) ++per_peer[connection->peer()];
  connection->start();
}

void HttpServer::State::closed(Connection& connection) {
  const auto found = open.find(&connection);
  if (found == open.end()) return;
  if (found->second.counted) {
    --counted;
    const auto peer = per_peer.find(connection.peer());
    if (peer != per_peer.end() && --peer->second <= 0) per_peer.erase(peer);
  }
  // Whoever calls one of its functions holds it until they are through.
  open.erase(found);
  stop_if_done();
}

void HttpServer::State::drain() {
  if (shared.draining) return;
  shared.draining = true;
  error_code ignored;
  acceptor.close(ignored);
  std::vector<std::shared_ptr<Connection>> all;
  for (const auto& [key, entry] : open) all.push_back(entry.connection);
  for (const auto& connection : all) connection->drain();
  stop_if_done();
}

void HttpServer::State::wait_signal() {
  signals.async_wait(asio::posix::stream_descriptor::wait_read, [this](const error_code& error) {
    if (error) return;
    on_signal();
    wait_signal();
  });
}

HttpServer::HttpServer(HttpServerOptions options, HttpHandler handler)
    : state_(std::make_unique<State>(std::move(options), std::move(handler))) {
  state_->listen();
}

HttpServer::~HttpServer() {
  std::vector<std::shared_ptr<Connection>> all;
  for (const auto& [key, entry] : state_->open) all.push_back(entry.connection);
  for (const auto& connection : all) connection->abandon();
  if (state_->signals.is_open()) state_->signals.release();  // the descriptor is the caller's
}

uint16_t HttpServer::port() const { return state_->acceptor.local_endpoint().port(); }

void HttpServer::run() {
  for (;;) {
    try {
      if (!state_->accepting && state_->acceptor.is_open()) state_->accept();
      state_->shared.loop.run();
      return;
    } catch (const std::bad_alloc&) {  // one client less; the others go on
      std::this_thread::sleep_for(kNoMemoryPause);
    }
  }
}

void HttpServer::watch(int descriptor, std::function<void()> on_signal) {
  state_->on_signal = std::move(on_signal);
  state_->signals.assign(descriptor);
  state_->wait_signal();
}

void HttpServer::drain() {
  asio::post(state_->shared.loop, [this] { state_->drain(); });
}

void HttpServer::stop() { state_->shared.loop.stop(); }

void HttpServer::after(double seconds, std::function<void()> task) {
  const auto timer = std::make_shared<asio::steady_timer>(state_->shared.loop);
  timer->expires_after(std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds)));
  timer->async_wait([timer, task = std::move(task)](const error_code& error) {
    if (!error) task();
  });
}

}  // namespace crumb::serve
