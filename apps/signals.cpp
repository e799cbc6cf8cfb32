#include "apps/signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

#include "models/errors.h"

namespace crumb::apps {

Signals::~Signals() {
  if (fd_ >= 0) close(fd_);
}

void Signals::watch() {
  if (fd_ >= 0) return;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd_ < 0)
    throw Error(ExitCode::kInternal, "cannot watch for signals: " + std::string(strerror(errno)));
}

int Signals::pending() {
  signalfd_siginfo info;
  while (fd_ >= 0 && read(fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    // SIGTERM is the stronger wish: a later SIGINT does not hide it.
    if (last_ != SIGTERM) last_ = static_cast<int>(info.ssi_signo);
  }
  return last_;
}

void Signals::clear() {
  pending();
  if (last_ != SIGTERM) last_ = 0;
}

}  // namespace crumb::apps
