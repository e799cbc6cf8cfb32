// Grammars of JSON numbers; for json_*.cpp only. All are built backwards: they go on at `next`.
#pragma once
#include <cstdint>

#include "engine/json_program.h"

namespace crumb::json {

// 15 nines: exact in a double, with a fraction of one digit.
inline constexpr int64_t kMostDigits = 999'999'999'999'999;

// Any number: at most 15 digits before and behind the point, and a power of two digits.
int32_t any_number(Builder& builder, int32_t next);

// low..high, without the ends if they are open; fractions of at most 15 digits, no powers.
// -1 if there is none.
struct RealBounds {
  int64_t low = -kMostDigits, high = kMostDigits;
  bool open_low = false, open_high = false;
};
int32_t real_between(Builder& builder, const RealBounds& bounds, int32_t next);

// Whole numbers low..high that `step` divides, -1 if there are none. `step` is at most
// kMaxStep times a power of ten.
inline constexpr int64_t kMaxStep = 256;
int32_t multiples(Builder& builder, int64_t low, int64_t high, int64_t step, int32_t next);

}  // namespace crumb::json
