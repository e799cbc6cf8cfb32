// A hash index over an array that lives elsewhere: 4 bytes a slot, no nodes, built in one pass.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/reject.h"

namespace crumb::tokenizer {

// The first 16 bytes of a text as two numbers: the first byte the lowest, 0 behind the end. Loads
// that overlap take the place of loops.
struct TextHead {
  uint64_t low = 0, high = 0;
  bool operator==(const TextHead&) const = default;
};
inline TextHead text_head(std::string_view text) {
  TextHead head;
  const std::size_t size = text.size();
  if (size >= 8) {
    std::memcpy(&head.low, text.data(), 8);
    if (size == 8) return head;
    std::memcpy(&head.high, text.data() + (size < 16 ? size - 8 : 8), 8);
    if (size < 16) head.high >>= 8 * (16 - size);
  } else if (size >= 4) {
    uint32_t first = 0, last = 0;
    std::memcpy(&first, text.data(), 4);
    std::memcpy(&last, text.data() + size - 4, 4);
    head.low = first | static_cast<uint64_t>(last) << 8 * (size - 4);
  } else if (size > 0) {
    const auto byte = [&](std::size_t i) {
      return uint64_t{static_cast<uint8_t>(text[i])} << 8 * i;
    };
    head.low = byte(0) | byte(size / 2) | byte(size - 1);
  }
  return head;
}

// A hash for the texts of vocabularies: every token is hashed when a model is loaded, and a call of
// std::hash takes longer than all the rest. Texts made to collide are stopped by insert().
inline uint64_t hash_step(uint64_t hash, uint64_t word) {
  return ((hash ^ hash >> 32) + word) * 0x9E3779B97F4A7C15u;
}
inline uint64_t hash_head(TextHead head, uint64_t size) {
  return hash_step(hash_step(size, head.low), head.high);
}
inline uint64_t hash_text(std::string_view text) {
  uint64_t hash = hash_head(text_head(text), text.size());
  for (std::size_t at = 16; at < text.size(); at += 16) {
    const TextHead more = text_head(text.substr(at));
    hash = hash_step(hash_step(hash, more.low), more.high);
  }
  return hash;
}

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
