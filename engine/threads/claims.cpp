#include "engine/threads/claims.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace crumb::threads {

Claims::Claims(const std::string& path)
    : file_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)) {
  struct stat about {};
  const bool ours = file_ >= 0 && fstat(file_, &about) == 0 && S_ISREG(about.st_mode) &&
                    about.st_uid == geteuid();
  if (file_ >= 0 && !ours) {
    close(file_);
    file_ = -1;
  }
}

Claims::~Claims() {
  if (file_ >= 0) close(file_);
}

bool Claims::take(int pu) const {
  if (file_ < 0) return true;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = pu;
  lock.l_len = 1;
  return fcntl(file_, F_SETLK, &lock) == 0 || (errno != EACCES && errno != EAGAIN);
}

std::string claims_path() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime == '/') return std::string(runtime) + "/crumb-cores";
  return "/tmp/crumb-cores-" + std::to_string(geteuid());
}

Chosen choose_pus(const std::vector<int>& candidates, int count,
                  const std::function<bool(int)>& take) {
  Chosen chosen;
  std::vector<int> taken;
  for (const int pu : candidates) {
    if (static_cast<int>(chosen.pus.size()) == count) return chosen;
    (take(pu) ? chosen.pus : taken).push_back(pu);
  }
  for (const int pu : taken) {
    if (static_cast<int>(chosen.pus.size()) == count) break;
    chosen.pus.push_back(pu);
    ++chosen.shared;
  }
  return chosen;
}

}  // namespace crumb::threads
