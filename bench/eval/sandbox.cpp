#include "bench/eval/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "bench/eval/sandbox_rules.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kPython = "/usr/bin/python3";
constexpr std::size_t kLongestProgram = 120'000;  // Linux takes 128 KiB an argument

struct Limit {
  decltype(RLIMIT_CPU) which;
  rlim_t value;
};

// In the child, after fork() in a process that may have threads: system calls only.
[[noreturn]] void become(SandboxRules& rules, std::span<const Limit> limits, int input, int output,
                         char* const* arguments, char* const* environment) {
  bool ready = setpgid(0, 0) == 0 && dup2(input, 0) == 0 && dup2(output, 1) == 1 &&
               dup2(output, 2) == 2 && chdir("/") == 0;
  for (const Limit& limit : limits) {
    const rlimit both{limit.value, limit.value};
    ready = ready && setrlimit(limit.which, &both) == 0;
  }
  if (ready && rules.enter()) execve(kPython, arguments, environment);
  _exit(1);
}

// Reads and forgets what there is; false at the end of the pipe.
bool drain(int fd) {
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got == 0) return false;
    if (got < 0) return errno == EAGAIN || errno == EINTR;
  }
}

// Waits for the child until the deadline; nothing if it did not end.
bool ended_by(pid_t child, int output, Clock::time_point deadline, int& status) {
  bool open = true;
  while (true) {
    if (const pid_t done = waitpid(child, &status, WNOHANG); done == child) return true;
    if (Clock::now() >= deadline) return false;
    pollfd wait{output, POLLIN, 0};
    poll(open ? &wait : nullptr, open ? 1 : 0, 5);
    if (open) open = drain(output);
  }
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  void close() {
    ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

[[noreturn]] void fail(const char* what) {
  throw IoError(std::string("cannot run a program (") + what + ": " + std::strerror(errno) + ")");
}

}  // namespace

std::string sandbox_missing() {
  if (std::string lack = SandboxRules::missing(); !lack.empty()) return lack;
  if (access(kPython, X_OK) != 0) return kPython;
  return run_python("pass") == ProgramEnd::kPassed ? std::string()
                                                   : "a python3 that starts in the sandbox";
}

ProgramEnd run_python(const std::string& program, const SandboxLimits& limits) {
  // A zero byte would end the argument: such a text is no program.
  if (program.size() > kLongestProgram || program.find('\0') != std::string::npos)
    return ProgramEnd::kFailed;
  SandboxRules rules;
  const Descriptor input(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (input.get() < 0) fail("/dev/null");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe");
  const Descriptor output(ends[0]);
  Descriptor writing(ends[1]);
  // Of the reading end only: the program must not see its writes refused.
  if (fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) fail("pipe");
  const Limit list[] = {{RLIMIT_CPU, static_cast<rlim_t>(limits.cpu_seconds)},
                        {RLIMIT_AS, static_cast<rlim_t>(limits.memory_bytes)},
                        {RLIMIT_FSIZE, 0},
                        {RLIMIT_CORE, 0},
                        {RLIMIT_NOFILE, 64}};
  std::string words[] = {kPython, "-s", "-S", "-B", "-c", program, "PYTHONHASHSEED=0"};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(),
                       words[4].data(), words[5].data(), nullptr};
  char* environment[] = {words[6].data(), nullptr};
  const pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) become(rules, list, input.get(), writing.get(), arguments, environment);
  writing.close();
  int status = 0;
  const bool ended = ended_by(child, output.get(), Clock::now() + limits.wall, status);
  if (!ended) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return ProgramEnd::kTimedOut;
  }
  if (WIFSIGNALED(status))
    return WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL ? ProgramEnd::kTimedOut
                                                                      : ProgramEnd::kFailed;
  return WEXITSTATUS(status) == 0 ? ProgramEnd::kPassed : ProgramEnd::kFailed;
}

}  // namespace crumb::eval
