// A loop that is unrolled whatever the optimiser thinks: an array of registers stays in registers
// only while every index is a constant.
#pragma once

namespace crumb::kernels {

// An int whose value is in its type, for instructions that take a constant.
template <int i>
struct Index {
  static constexpr int value = i;
  constexpr operator int() const { return i; }
};

// body(0), body(1), .., body(n - 1), each with an Index.
template <int n, int i = 0, class Body>
[[gnu::always_inline]] static inline void unroll(const Body& body) {
  if constexpr (i < n) {
    body(Index<i>{});
    unroll<n, i + 1>(body);
  }
}

}  // namespace crumb::kernels
