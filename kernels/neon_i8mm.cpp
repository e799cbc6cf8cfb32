// The `neon_i8mm` table: USDOT multiplies unsigned codes by signed activations, so that every field
// may stay where it is (ARMv8.6-A, I8MM).
#include <arm_neon.h>

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/neon.h"
#include "kernels/neon_matmul.h"

namespace crumb::kernels {

extern const Backend kNeonI8mm;

namespace neon {
namespace {

struct Dot {
  using Acc = int32x4_t;
  static constexpr int32_t kOffset = 0;
  static constexpr bool kMasked = true, kUnsigned = true;
  [[gnu::always_inline]] static Acc zero() { return vdupq_n_s32(0); }
  template <int lane>
  [[gnu::always_inline]] static void add(Acc& acc, uint8x16_t v, int8x16_t q) {
    acc = vusdotq_laneq_s32(acc, v, q, lane);
  }
  [[gnu::always_inline]] static void flush(Acc&) {}
  [[gnu::always_inline]] static int32x4_t total(Acc acc) { return acc; }
};

}  // namespace
}  // namespace neon

constinit const Backend kNeonI8mm = {"neon_i8mm",      neon::matmul<neon::Dot>,
                                     neon::matmul_f32, neon::quantize_row,
                                     neon::rmsnorm,    neon::rope,
                                     neon::silu_mul,   neon::gelu_mul,
                                     neon::hadamard,   neon::attend,
                                     neon::to_f16,     neon::to_i8,
                                     neon::argmax};

}  // namespace crumb::kernels
