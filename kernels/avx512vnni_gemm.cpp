// Prefill by vpdpbusd: blocks of 8 tokens x 32 rows, whose 16 registers of sums leave room for the
// panel's two and a broadcast of four activations.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni.h"
#include "kernels/avx512vnni_panel.h"
#include "kernels/backend.h"
#include "kernels/unroll.h"

namespace crumb::kernels {
namespace {

template <int kTokens>
void add_block(Panel panel, const int8_t* q, int64_t stride, bool start, int32_t* sums) noexcept {
  Ints acc[kTokens];
  unroll<kTokens>([&](int t) {
    int32_t* at = sums + t * kStripRows;
    acc[t] = start ? zero() : Ints{_mm512_load_si512(at), _mm512_load_si512(at + kZmmLanes)};
  });
  for (int64_t k = 0; k < panel.columns; k += 4) {
    const Ints v = load(panel.bytes + k * kStripRows);
    unroll<kTokens>([&](int t) { add_dots(acc[t], v, broadcast4(q + t * stride + k)); });
  }
  unroll<kTokens>([&](int t) {
    int32_t* at = sums + t * kStripRows;
    _mm512_store_si512(at, acc[t].low);
    _mm512_store_si512(at + kZmmLanes, acc[t].high);
  });
}

}  // namespace

void avx512vnni_add_panel(Panel panel, const int8_t* q, int64_t stride, int64_t tokens, bool start,
                          int32_t* sums) noexcept {
  int64_t t = 0;
  const auto run = [&]<int kTokens>() {
    add_block<kTokens>(panel, q + t * stride, stride, start, sums + t * kStripRows);
    t += kTokens;
  };
  while (tokens - t >= 8) run.template operator()<8>();
  if (tokens - t >= 4) run.template operator()<4>();
  if (tokens - t >= 2) run.template operator()<2>();
  if (tokens - t >= 1) run.template operator()<1>();
}

void avx512vnni_gemm(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                     int64_t ldy) noexcept {
  gemm(w, x, strips, y, ldy,
       [&x](Panel panel, const int8_t* q, int64_t tokens, bool start, int32_t* sums) {
         avx512vnni_add_panel(panel, q, x.stride, tokens, start, sums);
       });
}

}  // namespace crumb::kernels
