// What a sandboxed process may do, as the kernel takes it. Made before fork(): nothing here may be
// called in the child but enter().
#pragma once
#include <linux/filter.h>

#include <cstdint>
#include <string>
#include <vector>

namespace crumb::eval {

class SandboxRules {
 public:
  // Throws Error(kUsage) with what missing() says.
  SandboxRules();
  ~SandboxRules();
  SandboxRules(const SandboxRules&) = delete;
  SandboxRules& operator=(const SandboxRules&) = delete;

  // "" or what this kernel lacks.
  static std::string missing();
  // In the child: only system calls and memory that is there already. Puts the process under the
  // rules for good and closes every descriptor above 2. False if a step failed.
  bool enter() noexcept;

 private:
  int ruleset_ = -1;
  std::vector<sock_filter> filter_;
  std::vector<std::size_t> own_pid_;  // places in filter_ that want the child's number
};

}  // namespace crumb::eval
