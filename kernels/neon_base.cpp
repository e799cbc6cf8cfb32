// The `neon` table: base ARMv8-A has no dot product. SMLAL multiplies bytes into int16, which
// hold 8 products of codes up to 15 (15 * 127 * 8 = 15240) or one of INT8 (128 * 127 = 16256)
// before they are added in pairs to int32.
#include <arm_neon.h>

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/neon.h"
#include "kernels/neon_matmul.h"

namespace crumb::kernels {

extern const Backend kNeon;

namespace neon {
namespace {

struct Dot {
  struct Acc {
    int16x8_t products[2];  // rows 0 and 1, rows 2 and 3: four columns each
    int32x4_t pairs[2];
  };
  static constexpr int32_t kOffset = 128;
  static constexpr bool kMasked = false, kUnsigned = false;
  [[gnu::always_inline]] static Acc zero() {
    return {{vdupq_n_s16(0), vdupq_n_s16(0)}, {vdupq_n_s32(0), vdupq_n_s32(0)}};
  }
  template <int lane>
  [[gnu::always_inline]] static void add(Acc& acc, uint8x16_t v, int8x16_t q) {
    const int8x8_t x =
        vreinterpret_s8_s32(vdup_n_s32(vgetq_lane_s32(vreinterpretq_s32_s8(q), lane)));
    const int8x16_t codes = vreinterpretq_s8_u8(v);
    acc.products[0] = vmlal_s8(acc.products[0], vget_low_s8(codes), x);
    acc.products[1] = vmlal_s8(acc.products[1], vget_high_s8(codes), x);
  }
  [[gnu::always_inline]] static void flush(Acc& acc) {
    unroll<2>([&](int i) {
      acc.pairs[i] = vpadalq_s16(acc.pairs[i], acc.products[i]);
      acc.products[i] = vdupq_n_s16(0);
    });
  }
  [[gnu::always_inline]] static int32x4_t total(Acc acc) {
    return vpaddq_s32(acc.pairs[0], acc.pairs[1]);
  }
};

}  // namespace
}  // namespace neon

constinit const Backend kNeon = {"neon",           neon::matmul<neon::Dot>,
                                 neon::matmul_f32, neon::quantize_row,
                                 neon::rmsnorm,    neon::rope,
                                 neon::silu_mul,   neon::gelu_mul,
                                 neon::hadamard,   neon::attend,
                                 neon::to_f16,     neon::to_i8,
                                 neon::argmax};

}  // namespace crumb::kernels
