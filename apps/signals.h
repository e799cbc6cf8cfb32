// SIGINT and SIGTERM as something a verb asks about, without code that runs inside a handler.
#pragma once

namespace crumb::apps {

// Until watch() the signals end the program as usual. Afterwards they are blocked in this thread
// and in every thread it starts, and queue in a descriptor. Call watch() before any thread exists.
class Signals {
 public:
  Signals() = default;
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  void watch();
  // The number of a signal that came since clear(), 0 if none. Cheap enough for once a token.
  int pending();
  void clear();
  // Forgets whatever came, SIGTERM too.
  void forget() { last_ = 0; }
  int descriptor() const { return fd_; }  // readable when a signal waits; -1 before watch()

 private:
  int fd_ = -1;
  int last_ = 0;
};

// A job was asked to stop and did; main turns it into exit code 128 + number.
struct Stopped {
  int number;
};

}  // namespace crumb::apps
