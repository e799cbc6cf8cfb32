#include "bench/eval/sandbox_rules.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "models/errors.h"

namespace crumb::eval {
namespace {

// Landlock's interface, whose header in Debian 12 is older than the kernels that run.
struct RulesetAttributes {
  uint64_t files = 0, net = 0, scoped = 0;
};
struct __attribute__((packed)) PathBeneath {
  uint64_t allowed = 0;
  int32_t parent = -1;
};
constexpr uint64_t kExecute = 1, kReadFile = 4, kReadDir = 8;
constexpr int kRulePathBeneath = 1;
constexpr uint32_t kVersion = 1;

long landlock_version() { return syscall(SYS_landlock_create_ruleset, nullptr, 0, kVersion); }

// Accesses that this version can refuse: all of them.
uint64_t known_accesses(long version) {
  const int bits = version >= 5 ? 16 : version >= 3 ? 15 : version >= 2 ? 14 : 13;
  return (uint64_t{1} << bits) - 1;
}

struct Readable {
  const char* path;
  uint64_t accesses;
};
constexpr Readable kReadable[] = {
    {"/usr", kExecute | kReadFile | kReadDir},
    {"/lib", kExecute | kReadFile | kReadDir},
    {"/lib64", kExecute | kReadFile | kReadDir},
    {"/bin", kExecute | kReadFile | kReadDir},
    {"/etc/ld.so.cache", kReadFile},
};

int make_ruleset() {
  const long version = landlock_version();
  RulesetAttributes attributes;
  attributes.files = known_accesses(version);
  const auto fd = static_cast<int>(
      syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes.files, 0));
  if (fd < 0) return -1;
  for (const Readable& one : kReadable) {
    const int place = open(one.path, O_PATH | O_CLOEXEC);
    if (place < 0) continue;  // a folder that is not there need not be read
    PathBeneath rule;
    rule.allowed = one.accesses;
    rule.parent = place;
    const long failed = syscall(SYS_landlock_add_rule, fd, kRulePathBeneath, &rule, 0);
    close(place);
    if (failed != 0) {
      close(fd);
      return -1;
    }
  }
  return fd;
}

constexpr long kRefused[] = {
    SYS_socket,
    SYS_socketpair,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_unshare,
    SYS_setns,
    SYS_io_uring_setup,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_userfaultfd,
    SYS_open_by_handle_at,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_tkill,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchown,
    SYS_fchownat,
    SYS_utimensat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
    SYS_truncate,
    SYS_memfd_create,
    SYS_shmget,
    SYS_msgget,
    SYS_semget,
    SYS_mq_open,
    SYS_setsid,
    SYS_setpgid,
    SYS_reboot,
    SYS_swapon,
    SYS_sethostname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_quotactl,
    SYS_setpriority,
    SYS_sched_setscheduler,
    SYS_acct,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    452,  // fchmodat2, newer than the headers; the same number everywhere
};
// Old calls that only x86-64 has: fork, vfork, chmod, chown, lchown, utime, mknod, utimes,
// futimesat.
constexpr long kRefusedOnX86[] = {57, 58, 90, 92, 94, 132, 133, 235, 261};
// Allowed on the process itself only.
constexpr long kSelfOnly[] = {SYS_kill, SYS_tgkill};

constexpr uint32_t kDeny = SECCOMP_RET_ERRNO | EPERM;

sock_filter statement(uint16_t code, uint32_t k) { return {code, 0, 0, k}; }
sock_filter jump(uint16_t code, uint32_t k, uint8_t yes, uint8_t no) { return {code, yes, no, k}; }
sock_filter load(std::size_t offset) {
  return statement(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
sock_filter give(uint32_t verdict) { return statement(BPF_RET | BPF_K, verdict); }

constexpr std::size_t kNumber = offsetof(seccomp_data, nr);
constexpr std::size_t kFirstArgument = offsetof(seccomp_data, args);  // its low half

// If the call is `number`, the verdict; else on.
void refuse(std::vector<sock_filter>& filter, long number, uint32_t verdict) {
  filter.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
  filter.push_back(give(verdict));
}

// EM_NONE for one whose calls are not known here.
uint16_t machine_of_this_process() {
  utsname name{};
  if (uname(&name) != 0) return EM_NONE;
  const std::string_view machine(name.machine);
  return machine == "x86_64" ? EM_X86_64 : machine == "aarch64" ? EM_AARCH64 : EM_NONE;
}

std::vector<sock_filter> make_filter(std::vector<std::size_t>& own_pid) {
  const uint16_t machine = machine_of_this_process();
  std::vector<sock_filter> filter;
  // Another calling convention (32-bit calls have other numbers) ends the process.
  filter.push_back(load(offsetof(seccomp_data, arch)));
  filter.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K,
                        machine | uint32_t{__AUDIT_ARCH_64BIT} | __AUDIT_ARCH_LE, 1, 0));
  filter.push_back(give(SECCOMP_RET_KILL_PROCESS));
  filter.push_back(load(kNumber));
  filter.push_back(jump(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1));  // x32
  filter.push_back(give(SECCOMP_RET_KILL_PROCESS));
  for (const long number : kRefused) refuse(filter, number, kDeny);
  if (machine == EM_X86_64)
    for (const long number : kRefusedOnX86) refuse(filter, number, kDeny);
  // clone3 keeps its flags in memory, where no filter sees them; without it libc uses clone.
  refuse(filter, SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS);
  filter.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4));
  filter.push_back(load(kFirstArgument));
  filter.push_back(jump(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0));
  filter.push_back(give(kDeny));
  filter.push_back(give(SECCOMP_RET_ALLOW));
  for (const long number : kSelfOnly) {
    filter.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 4));
    filter.push_back(load(kFirstArgument));
    own_pid.push_back(filter.size());
    filter.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0));
    filter.push_back(give(kDeny));
    filter.push_back(give(SECCOMP_RET_ALLOW));
  }
  filter.push_back(give(SECCOMP_RET_ALLOW));
  return filter;
}

}  // namespace

std::string SandboxRules::missing() {
  if (landlock_version() < 1) return "Landlock (Linux 5.13 or later with it switched on)";
  if (prctl(PR_GET_SECCOMP) < 0) return "seccomp filters";
  if (machine_of_this_process() == EM_NONE) return "an x86-64 or 64-bit Arm machine";
  return {};
}

SandboxRules::SandboxRules() {
  if (const std::string lack = missing(); !lack.empty())
    throw Error(ExitCode::kUsage, "no sandbox for programs here (missing: " + lack + ")");
  ruleset_ = make_ruleset();
  if (ruleset_ < 0)
    throw Error(ExitCode::kUsage, "no sandbox for programs here (Landlock: " +
                                      std::string(std::strerror(errno)) + ")");
  filter_ = make_filter(own_pid_);
}

SandboxRules::~SandboxRules() {
  if (ruleset_ >= 0) close(ruleset_);
}

bool SandboxRules::enter() noexcept {
  for (const std::size_t at : own_pid_) filter_[at].k = static_cast<uint32_t>(getpid());
  const sock_fprog program{static_cast<uint16_t>(filter_.size()), filter_.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_landlock_restrict_self, ruleset_, 0) == 0 &&
         syscall(SYS_close_range, 3, ~0u, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace crumb::eval
