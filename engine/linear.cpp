#include "engine/linear.h"

#include <algorithm>

namespace crumb {

InputBuffer::InputBuffer(int64_t tokens, int64_t max_k) : stride((max_k + 63) / 64 * 64) {
  const auto n = static_cast<std::size_t>(tokens * stride);
  x = kernels::AlignedBuffer<float>(n);
  q = kernels::AlignedBuffer<int8_t>(n);
  scales = kernels::AlignedBuffer<float>(n / 32);
  sums = kernels::AlignedBuffer<int32_t>(n / 32);
}

void prepare_token(const kernels::Backend& backend, const Site& site, InputBuffer& buffer,
                   int64_t t) noexcept {
  if (site.group == 0) return;
  float* x = buffer.x.data() + t * site.K;
  if (site.hadamard > 0) backend.hadamard(x, site.signs.data(), site.K, site.hadamard);
  backend.quantize_row(x, site.K, site.group, buffer.stride, buffer.q.data() + t * buffer.stride,
                       buffer.scales.data() + t * site.groups,
                       buffer.sums.data() + t * site.groups);
}

Input input_of(const Site& site, const InputBuffer& buffer, int64_t T) noexcept {
  Input input;
  input.x = buffer.x.data();
  input.q = {buffer.q.data(), buffer.scales.data(), buffer.sums.data(), T,
             buffer.stride,   site.group,           site.groups};
  return input;
}

void multiply(const kernels::Backend& backend, const Linear& w, const Input& x,
              kernels::Range strips, float* y, int64_t ldy) noexcept {
  if (strips.begin >= strips.end) return;
  if (w.packed.codes != nullptr) {
    backend.matmul(w.packed, x.q, strips, y, ldy);
    return;
  }
  const kernels::Range rows{strips.begin * kernels::kStripRows,
                            std::min(w.N, strips.end * kernels::kStripRows)};
  backend.matmul_f32(w.f32.data(), w.K, x.x, x.q.tokens, rows, y, ldy);
}

}  // namespace crumb
