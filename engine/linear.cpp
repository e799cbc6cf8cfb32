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

kernels::Range own_strips(const StripWork& work, int64_t N,
                          const threads::Worker& worker) noexcept {
  if (work.empty()) return worker.slice(kernels::strip_count(N));
  const kernels::Range own = worker.slice(work.back());
  const auto strip = [&](int64_t bits) {
    return std::lower_bound(work.begin(), work.end(), bits) - work.begin();
  };
  return {strip(own.begin), strip(own.end)};
}

void multiply(const kernels::Backend& backend, const Linear& w, const Input& x,
              kernels::Range strips, float* y, int64_t ldy) noexcept {
  if (strips.begin >= strips.end) return;
  if (!w.bands.empty()) {
    int64_t first = 0;
    for (const kernels::PackedMatrix& band : w.bands) {
      const int64_t count = kernels::strip_count(band.rows);
      const kernels::Range part{std::max<int64_t>(strips.begin - first, 0),
                                std::min(strips.end - first, count)};
      if (part.begin < part.end)
        backend.matmul(band, x.q, part, y + first * kernels::kStripRows, ldy);
      first += count;
    }
    return;
  }
  const kernels::Range rows{strips.begin * kernels::kStripRows,
                            std::min(w.N, strips.end * kernels::kStripRows)};
  backend.matmul_f32(w.f32.data(), w.K, x.x, x.q.tokens, rows, y, ldy);
}

}  // namespace crumb
