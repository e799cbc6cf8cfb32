// A loop that is unrolled whatever the optimiser thinks: an array of registers stays in registers
// only while every index is a constant.
#pragma once

namespace crumb::kernels {

// body(0), body(1), .., body(n - 1).
template <int n, int i = 0, class Body>
[[gnu::always_inline]] static inline void unroll(const Body& body) {
  if constexpr (i < n) {
    body(i);
    unroll<n, i + 1>(body);
  }
}

}  // namespace crumb::kernels
