// A hash index over an array that lives elsewhere: 4 bytes a slot, no nodes, built in one pass.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/reject.h"

namespace crumb::tokenizer {

// Open addressing with linear probing, at most half full. Hashes may be weak in their low bits;
// they are mixed here.
class FlatIndex {
 public:
  explicit FlatIndex(std::size_t count)
      : slots_(std::bit_ceil(2 * count + 2), kEmpty),
        shift_(64 - std::countr_zero(slots_.size())) {}

  // Puts `value` in, unless one that `equal` accepts is there. Returns the one that is now there.
  // Throws std::invalid_argument after kMaxProbes: with half the slots free that is no accident
  // but data made to collide, which would make building quadratic.
  template <typename Equal>
  int32_t insert(uint64_t hash, int32_t value, Equal equal) {
    std::size_t slot = first_slot(hash);
    for (int probe = 0; probe < kMaxProbes; ++probe) {
      if (slots_[slot] == kEmpty) slots_[slot] = value;
      if (slots_[slot] == value || equal(slots_[slot])) return slots_[slot];
      slot = (slot + 1) & (slots_.size() - 1);
    }
    reject("entries that collide", "hash index", "at most " + std::to_string(kMaxProbes),
           "more, which no real vocabulary has");
  }

  // The value that `equal` accepts, or -1.
  template <typename Equal>
  int32_t find(uint64_t hash, Equal equal) const {
    std::size_t slot = first_slot(hash);
    while (slots_[slot] != kEmpty && !equal(slots_[slot])) {
      slot = (slot + 1) & (slots_.size() - 1);
    }
    return slots_[slot];
  }

 private:
  static constexpr int32_t kEmpty = -1;
  static constexpr int kMaxProbes = 2048;

  std::size_t first_slot(uint64_t hash) const {
    // Fibonacci hashing after a fold: the product's top bits depend on every bit below them.
    return (hash ^ hash >> 32) * 0x9E3779B97F4A7C15u >> shift_;
  }

  std::vector<int32_t> slots_;
  int shift_;
};

}  // namespace crumb::tokenizer
