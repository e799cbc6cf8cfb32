// The handle by which other threads answer a request; for connection.cpp only.
#pragma once
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>

#include "apps/serve/http_types.h"

namespace crumb::serve {

class Connection;

class ConnectionExchange : public Exchange,
                           public std::enable_shared_from_this<ConnectionExchange> {
 public:
  ConnectionExchange(boost::asio::io_context& loop, std::weak_ptr<Connection> connection,
                     uint64_t serial)
      : loop_(loop), connection_(std::move(connection)), serial_(serial) {}

  void respond(HttpResponse response) override;
  void start(HttpResponse head) override;
  void write(std::string piece) override;
  void finish(bool complete) override;
  int64_t unsent() const override { return unsent_.load(std::memory_order_relaxed); }
  bool gone() const override { return gone_.load(std::memory_order_relaxed); }
  void on_gone(std::function<void()> callback) override;

  // On the loop.
  void add_unsent(int64_t bytes) { unsent_.fetch_add(bytes, std::memory_order_relaxed); }
  void leave();

 private:
  template <class Call>
  void post(Call call);

  boost::asio::io_context& loop_;
  std::weak_ptr<Connection> connection_;
  uint64_t serial_;
  std::atomic<int64_t> unsent_{0};
  std::atomic<bool> gone_{false};
  std::function<void()> on_gone_;  // of the loop
};

}  // namespace crumb::serve
