// Runs a Python program that a model wrote, with nothing to harm: no network, no file to write,
// only the system's own programs and libraries to read, limited time, memory, processes and output.
//
// The child, before it becomes /usr/bin/python3: standard input from /dev/null, output to a pipe
// that is read and thrown away, every other descriptor closed, an empty environment but
// PYTHONHASHSEED=0, resource limits, no new privileges, a Landlock domain (every access to files is
// refused but reading and executing below /usr, /lib, /lib64, /bin and reading /etc/ld.so.cache),
// and a seccomp filter under which these fail with EPERM: sockets, new processes (threads may be),
// signals to others, ptrace, mounts, namespaces, modes, owners and times of files, shared memory,
// io_uring, bpf, keys, kernel modules. The program travels on the command line, never through a
// file.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace crumb::eval {

struct SandboxLimits {
  std::chrono::milliseconds wall{10'000};
  int64_t cpu_seconds = 10;
  int64_t memory_bytes = int64_t{1} << 30;  // address space
};

enum class ProgramEnd : uint8_t { kPassed, kFailed, kTimedOut };

// "" if a trivial program passes under all that is said above, else what is missing ("Landlock ..",
// "/usr/bin/python3").
std::string sandbox_missing();

// kPassed: exit status 0. kTimedOut: past a limit of time, killed. A program that needs more than
// 120,000 bytes or holds a zero byte fails without being run. Nothing is ever run without Landlock
// and seccomp: Error(kUsage) where the kernel has none. IoError if no process can be made.
ProgramEnd run_python(const std::string& program, const SandboxLimits& limits = {});

}  // namespace crumb::eval
