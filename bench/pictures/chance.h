// Numbers drawn one after the other, by a seed and the number of a picture.
#pragma once
#include <cstddef>
#include <cstdint>

#include "engine/rng.h"

namespace crumb::pictures {

class Chance {
 public:
  // At most 2^24 draws a picture.
  Chance(uint64_t seed, uint64_t picture) : seed_(seed), next_(picture << 24) {}
  double share() { return uniform(seed_, next_++); }  // [0, 1)
  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(share() * static_cast<double>(n));
  }

 private:
  uint64_t seed_, next_;
};

}  // namespace crumb::pictures
