// From inside the sandbox: what an intruder would try fails, and what serving needs works.
#include "apps/serve/sandbox.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <functional>
#include <thread>

#include "tests/support/temp_dir.h"

namespace crumb::serve {
namespace {

// Runs `body` in a child and gives what it returns; 255 if the child died.
int in_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    int code = 254;
    try {
      code = body();
    } catch (...) {
    }
    _exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

bool denied(long result) { return result < 0 && (errno == EPERM || errno == EACCES); }

class Sandbox : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string lack = sandbox_missing(); !lack.empty()) GTEST_SKIP() << lack;
    path_ = dir_.file("model");
    std::ofstream(path_) << "weights";
  }
  // The number of the first check that fails, 0 if none.
  static int first_failure(const std::vector<std::function<bool()>>& checks) {
    for (std::size_t i = 0; i < checks.size(); ++i)
      if (!checks[i]()) return static_cast<int>(i) + 1;
    return 0;
  }
  const test::TempDir dir_;
  std::string path_;
};

TEST_F(Sandbox, FilesAreReadOnlyAndFew) {
  EXPECT_EQ(in_child([&] {
              confine_files({path_});
              const std::string other = path_ + ".other";
              return first_failure({
                  [&] { return open(path_.c_str(), O_RDONLY) >= 0; },
                  [&] { return denied(open(path_.c_str(), O_RDWR)); },
                  [&] { return denied(open(other.c_str(), O_CREAT | O_WRONLY, 0600)); },
                  [&] { return denied(unlink(path_.c_str())); },
                  [&] { return denied(open("/etc/shadow", O_RDONLY)); },
                  [&] { return denied(open("/etc/passwd", O_RDONLY)); },
                  [&] { return denied(open("/", O_RDONLY | O_DIRECTORY)); },
                  [&] { return open("/proc/self/statm", O_RDONLY) >= 0; },
                  // A thread made later is held too.
                  [&] {
                    bool held = false;
                    std::thread([&] { held = denied(open("/etc/passwd", O_RDONLY)); }).join();
                    return held;
                  },
                  [&] {
                    char* const nothing[] = {nullptr};
                    return denied(execve("/bin/true", nothing, nothing));
                  },
              });
            }),
            0);
}

TEST_F(Sandbox, NothingIsStartedAndNobodyIsCalled) {
  EXPECT_EQ(in_child([&] {
              const int here = socket(AF_INET, SOCK_STREAM, 0);
              confine_files({});
              confine_calls();
              sockaddr_in somewhere{};
              somewhere.sin_family = AF_INET;
              somewhere.sin_port = htons(9);
              somewhere.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
              const auto* address = reinterpret_cast<const sockaddr*>(&somewhere);
              return first_failure({
                  [&] { return denied(socket(AF_INET, SOCK_STREAM, 0)); },
                  [&] { return denied(connect(here, address, sizeof somewhere)); },
                  [&] { return denied(bind(here, address, sizeof somewhere)); },
                  [&] { return denied(fork()); },
                  [&] {
                    char* const nothing[] = {nullptr};
                    return denied(execve("/bin/true", nothing, nothing));
                  },
                  [&] { return denied(kill(getppid(), 0)); },
                  [&] {
                    char byte = 'x';
                    return denied(ioctl(0, TIOCSTI, &byte));
                  },
                  [&] {
                    void* some = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                    return some != MAP_FAILED && munmap(some, 1 << 20) == 0;
                  },
              });
            }),
            0);
}

TEST_F(Sandbox, ThreadsThatAreThereAreHeld) {
  // Not std::thread: what UBSan asks of its object, it asks by calls that are denied here.
  struct Shared {
    std::atomic<bool> confined{false};
    int result = 1;
  };
  EXPECT_EQ(in_child([] {
              Shared shared;
              pthread_t before{};
              const auto body = [](void* p) -> void* {
                auto* of = static_cast<Shared*>(p);
                of->confined.wait(false);
                of->result = denied(socket(AF_INET, SOCK_STREAM, 0)) ? 0 : 2;
                return nullptr;
              };
              if (pthread_create(&before, nullptr, body, &shared) != 0) return 3;
              confine_calls();
              shared.confined = true;
              shared.confined.notify_all();
              pthread_join(before, nullptr);
              return shared.result;
            }),
            0);
}

}  // namespace
}  // namespace crumb::serve
