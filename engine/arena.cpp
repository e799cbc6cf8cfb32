#include "engine/arena.h"

#include <sys/mman.h>

#include <cassert>
#include <string>
#include <utility>

#include "models/errors.h"

namespace crumb {
namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

Arena::Arena(std::size_t bytes, bool huge) : size_(bytes) {
  if (bytes == 0) return;
  // A huge page must start on its own boundary, so map one more and begin inside.
  mapped_ = huge ? bytes + kHugePage : bytes;
  void* p = mapped_ < bytes ? MAP_FAILED
                            : mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw Error(ExitCode::kMemory,
                "out of memory (asking the system for " + std::to_string(bytes) + " bytes)",
                "use a smaller context (-c) or a smaller model");
  mapping_ = p;
  auto address = reinterpret_cast<uintptr_t>(p);
  if (huge) {
    address = (address + kHugePage - 1) / kHugePage * kHugePage;
    // Advice only: without huge pages everything works, a little slower.
    madvise(reinterpret_cast<void*>(address), bytes, MADV_HUGEPAGE);
  }
  data_ = reinterpret_cast<uint8_t*>(address);
}

Arena::~Arena() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

Arena::Arena(Arena&& other) noexcept { *this = std::move(other); }

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  std::swap(size_, other.size_);
  std::swap(used_, other.used_);
  return *this;
}

uint8_t* Arena::take(std::size_t bytes) {
  uint8_t* p = data_ + used_;
  used_ += aligned_size(bytes);
  assert(used_ <= size_);
  return p;
}

}  // namespace crumb
