#include "apps/serve/sandbox.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string_view>

#include "models/errors.h"

namespace crumb::serve {
namespace {

// Landlock's interface, whose header in Debian 12 is older than the kernels that run.
struct RulesetAttributes {
  uint64_t files = 0, net = 0;
};
struct __attribute__((packed)) PathBeneath {
  uint64_t allowed = 0;
  int32_t parent = -1;
};
constexpr uint64_t kReadFile = 4, kReadDir = 8;
constexpr uint64_t kBindTcp = 1, kConnectTcp = 2;
constexpr int kRulePathBeneath = 1;
constexpr uint32_t kVersion = 1;
constexpr long kNetVersion = 4;  // from here on Landlock knows TCP

// What the allocator, the C library, hwloc and the metrics look at.
constexpr const char* kSystem[] = {"/proc", "/sys", "/etc/localtime", "/usr/share/zoneinfo",
                                   "/dev/urandom"};

long landlock_version() { return syscall(SYS_landlock_create_ruleset, nullptr, 0, kVersion); }

// Accesses to files that this version can refuse: all of them.
uint64_t known_accesses(long version) {
  const int bits = version >= 5 ? 16 : version >= 3 ? 15 : version >= 2 ? 14 : 13;
  return (uint64_t{1} << bits) - 1;
}

[[noreturn]] void fail(const std::string& what) {
  throw Error(ExitCode::kUsage,
              "cannot enter the sandbox (" + what + ": " + std::strerror(errno) + ")",
              "--sandbox off serves without it");
}

void allow_reading(int ruleset, const std::string& path) {
  const int place = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (place < 0) return;  // what is not there need not be read
  struct stat about {};
  PathBeneath rule;
  rule.allowed = kReadFile;
  if (fstat(place, &about) == 0 && S_ISDIR(about.st_mode)) rule.allowed |= kReadDir;
  rule.parent = place;
  const long failed = syscall(SYS_landlock_add_rule, ruleset, kRulePathBeneath, &rule, 0);
  close(place);
  if (failed != 0) fail("Landlock's rule for " + path);
}

// Memory, descriptors that are there, time, waiting; files only to read (Landlock says which).
constexpr long kAllowed[] = {
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_lseek,
    SYS_close,
    SYS_openat,
    SYS_newfstatat,
    SYS_fstat,
    SYS_statx,
    SYS_getdents64,
    SYS_readlinkat,
    SYS_faccessat,
    SYS_fcntl,

    SYS_dup,
    // sockets that are there, and those that come to them
    SYS_accept4,
    SYS_accept,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_recvfrom,
    SYS_sendto,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getpeername,
    SYS_getsockname,
    // waiting
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_ppoll,
    SYS_pselect6,
    SYS_timerfd_settime,
    SYS_futex,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_sched_yield,
    SYS_restart_syscall,
    // memory
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_mprotect,
    SYS_brk,
    SYS_membarrier,
    // this process and its threads
    SYS_getpid,
    SYS_gettid,
    SYS_tgkill,
    SYS_exit,
    SYS_exit_group,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_sched_getaffinity,
    SYS_sched_setaffinity,
    SYS_getrandom,
    SYS_getrusage,
    SYS_getcpu,
    SYS_sysinfo,
    SYS_uname,
    SYS_rseq,
    SYS_set_robust_list,
};
// Old calls that only x86-64 has: open, stat, lstat, poll, access, select, readlink, arch_prctl,
// time, epoll_wait.
constexpr long kAllowedOnX86[] = {2, 4, 6, 7, 21, 23, 89, 158, 201, 232};
// Of ioctl: whether it is a terminal, bytes waiting, not to block. Others could type into one.
constexpr uint32_t kAllowedControls[] = {TCGETS, FIONREAD, FIONBIO};

sock_filter statement(uint16_t code, uint32_t k) { return {code, 0, 0, k}; }
sock_filter jump(uint16_t code, uint32_t k, uint8_t yes, uint8_t no) { return {code, yes, no, k}; }
sock_filter load(std::size_t offset) {
  return statement(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
sock_filter give(uint32_t verdict) { return statement(BPF_RET | BPF_K, verdict); }

// EM_NONE for one whose calls are not known here.
uint16_t machine_of_this_process() {
  utsname name{};
  if (uname(&name) != 0) return EM_NONE;
  const std::string_view machine(name.machine);
  return machine == "x86_64" ? EM_X86_64 : machine == "aarch64" ? EM_AARCH64 : EM_NONE;
}

void allow(std::vector<sock_filter>& filter, uint32_t value) {
  filter.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
  filter.push_back(give(SECCOMP_RET_ALLOW));
}

std::vector<sock_filter> make_filter() {
  std::vector<sock_filter> filter;
  // Another calling convention (32-bit calls have other numbers) ends the process.
  filter.push_back(load(offsetof(seccomp_data, arch)));
  const uint16_t machine = machine_of_this_process();
  filter.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K,
                        machine | uint32_t{__AUDIT_ARCH_64BIT} | __AUDIT_ARCH_LE, 1, 0));
  filter.push_back(give(SECCOMP_RET_KILL_PROCESS));
  filter.push_back(load(offsetof(seccomp_data, nr)));
  for (const long number : kAllowed) allow(filter, static_cast<uint32_t>(number));
  if (machine == EM_X86_64)
    for (const long number : kAllowedOnX86) allow(filter, static_cast<uint32_t>(number));
  const auto controls = static_cast<uint8_t>(2 * std::size(kAllowedControls) + 1);
  filter.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, controls));
  filter.push_back(load(offsetof(seccomp_data, args) + sizeof(uint64_t)));  // low half of the 2nd
  for (const uint32_t control : kAllowedControls) allow(filter, control);
  filter.push_back(give(SECCOMP_RET_ERRNO | EPERM));
  return filter;
}

}  // namespace

std::string sandbox_missing() {
  if (landlock_version() < 1) return "Landlock (Linux 5.13 or later with it switched on)";
  if (prctl(PR_GET_SECCOMP) < 0) return "seccomp filters";
  if (machine_of_this_process() == EM_NONE) return "an x86-64 or 64-bit Arm machine";
  return {};
}

void confine_files(const std::vector<std::string>& readable) {
  const long version = landlock_version();
  RulesetAttributes attributes;
  attributes.files = known_accesses(version);
  if (version >= kNetVersion) attributes.net = kBindTcp | kConnectTcp;
  const std::size_t size = version >= kNetVersion ? sizeof attributes : sizeof attributes.files;
  const auto ruleset = static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, size, 0));
  if (ruleset < 0) fail("Landlock");
  for (const char* path : kSystem) allow_reading(ruleset, path);
  for (const std::string& path : readable) allow_reading(ruleset, path);
  const bool entered = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                       syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
  close(ruleset);
  if (!entered) fail("Landlock");
}

void confine_calls() {
  const std::vector<sock_filter> filter = make_filter();
  const sock_fprog program{static_cast<uint16_t>(filter.size()),
                           const_cast<sock_filter*>(filter.data())};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
    fail("seccomp");
}

}  // namespace crumb::serve
