#include "apps/serve/connection_exchange.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "apps/serve/connection.h"

namespace crumb::serve {

template <class Call>
void ConnectionExchange::post(Call call) {
  if (gone()) return;
  boost::asio::post(loop_, [weak = connection_, call = std::move(call)]() mutable {
    if (const auto connection = weak.lock()) connection->guarded([&] { call(*connection); });
  });
}

void ConnectionExchange::respond(HttpResponse response) {
  post([serial = serial_, response = std::move(response)](Connection& connection) mutable {
    connection.respond(serial, std::move(response));
  });
}

void ConnectionExchange::start(HttpResponse head) {
  post([serial = serial_, head = std::move(head)](Connection& connection) mutable {
    connection.start_stream(serial, std::move(head));
  });
}

void ConnectionExchange::write(std::string piece) {
  add_unsent(static_cast<int64_t>(piece.size()));
  post([serial = serial_, piece = std::move(piece)](Connection& connection) mutable {
    connection.write_stream(serial, std::move(piece));
  });
}

void ConnectionExchange::finish(bool complete) {
  post([serial = serial_, complete](Connection& connection) {
    connection.finish_stream(serial, complete);
  });
}

void ConnectionExchange::on_gone(std::function<void()> callback) {
  boost::asio::post(loop_, [self = shared_from_this(), callback = std::move(callback)]() mutable {
    if (self->gone()) return callback();
    self->on_gone_ = std::move(callback);
  });
}

void ConnectionExchange::leave() {
  gone_.store(true, std::memory_order_relaxed);
  if (const auto callback = std::exchange(on_gone_, {})) callback();
}

}  // namespace crumb::serve
