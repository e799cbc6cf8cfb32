// Which PUs other crumb processes of this user have pinned threads to: two that use a part of the
// machine each should not share cores while others are idle.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace crumb::threads {

// Byte N of the file at `path` is locked for PU N (fcntl, so until this process ends or closes it;
// processes do not conflict with themselves). Without the file, a lock or the right to it every PU
// counts as free: claims only choose between cores.
class Claims {
 public:
  explicit Claims(const std::string& path);
  ~Claims();
  Claims(const Claims&) = delete;
  Claims& operator=(const Claims&) = delete;

  // False if another process has it.
  bool take(int pu) const;

 private:
  int file_ = -1;
};

// In XDG_RUNTIME_DIR, else /tmp, a file of this user's.
std::string claims_path();

// `count` of `candidates`: the first that `take` says are free, then the first of the others.
struct Chosen {
  std::vector<int> pus;
  int shared = 0;  // of them, those that were not free
};
Chosen choose_pus(const std::vector<int>& candidates, int count,
                  const std::function<bool(int)>& take);

}  // namespace crumb::threads
