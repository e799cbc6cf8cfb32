#include "quant/rounded.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "kernels/float16.h"
#include "kernels/pack.h"
#include "quant/parallel.h"
#include "quant/rtn.h"

namespace crumb::quant {

Rounded make_rounded(int64_t N, int64_t K, int bits, int64_t group, kernels::Grid grid) {
  Rounded out;
  out.N = N;
  out.K = K;
  out.bits = bits;
  out.group = group == 0 ? K : group;
  out.grid = grid;
  out.codes.resize(static_cast<std::size_t>(N * K));
  out.scales.resize(static_cast<std::size_t>(N * groups_of(out)));
  if (grid == kernels::Grid::kAsym) out.zeros.resize(out.scales.size());
  return out;
}

void set_fit(Rounded* rounded, int64_t n, int64_t g, const GroupFit& fit) {
  const auto at = static_cast<std::size_t>(n * groups_of(*rounded) + g);
  rounded->scales[at] = kernels::f32_to_f16(fit.scale);
  if (!rounded->zeros.empty()) rounded->zeros[at] = static_cast<uint8_t>(fit.zero2 / 2);
}

GroupFit fit_of(const Rounded& rounded, int64_t n, int64_t g) {
  const auto at = static_cast<std::size_t>(n * groups_of(rounded) + g);
  return {kernels::f16_to_f32(rounded.scales[at]),
          rounded.zeros.empty() ? kernels::grid_zero2(rounded.grid, rounded.bits)
                                : 2 * static_cast<int32_t>(rounded.zeros[at])};
}

std::vector<float> dequantize(const Rounded& rounded) {
  std::vector<float> out(rounded.codes.size());
  for (int64_t n = 0; n < rounded.N; ++n)
    for (int64_t g = 0; g < groups_of(rounded); ++g) {
      const GroupFit fit = fit_of(rounded, n, g);
      const float zero = 0.5f * static_cast<float>(fit.zero2);
      const int64_t begin = n * rounded.K + g * rounded.group;
      const int64_t end = n * rounded.K + std::min(rounded.K, (g + 1) * rounded.group);
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
        out[i] = fit.scale * (static_cast<float>(rounded.codes[i]) - zero);
    }
  return out;
}

models::PackedData pack(const Rounded& rounded, const models::Rotation& rotation) {
  models::PackedData packed;
  packed.rows = rounded.N;
  packed.cols = rounded.K;
  packed.group = rounded.group;
  packed.bits = rounded.bits;
  packed.grid = rounded.grid;
  packed.rotation = rotation;
  const int64_t strips = kernels::strip_count(rounded.N);
  const int64_t groups = groups_of(rounded);
  packed.codes.resize(
      static_cast<std::size_t>(strips * kernels::strip_code_bytes(rounded.K, rounded.bits)));
  kernels::pack_codes(rounded.codes, rounded.N, rounded.K, rounded.bits, packed.codes);
  packed.scales.resize(static_cast<std::size_t>(strips * groups * kernels::kStripRows));
  kernels::pack_groups(std::span<const uint16_t>(rounded.scales), rounded.N, groups, uint16_t{0},
                       packed.scales);
  if (!rounded.zeros.empty()) {
    packed.zeros.resize(packed.scales.size());
    kernels::pack_groups(std::span<const uint8_t>(rounded.zeros), rounded.N, groups, uint8_t{0},
                         packed.zeros);
  }
  return packed;
}

models::PackedData pack_bands(std::span<const Rounded> bands, const models::Rotation& rotation) {
  models::PackedData all = pack(bands.front(), rotation);
  std::vector<models::Band> table = {{kernels::strip_count(all.rows), all.bits}};
  for (const Rounded& band : bands.subspan(1)) {
    assert(all.rows % kernels::kStripRows == 0 && band.K == all.cols && band.group == all.group);
    const models::PackedData part = pack(band, rotation);
    all.codes.insert(all.codes.end(), part.codes.begin(), part.codes.end());
    all.scales.insert(all.scales.end(), part.scales.begin(), part.scales.end());
    all.zeros.insert(all.zeros.end(), part.zeros.begin(), part.zeros.end());
    all.rows += part.rows;
    table.push_back({kernels::strip_count(part.rows), part.bits});
  }
  models::MatrixPlan plan;
  models::set_bands(table, &plan);
  all.bits = plan.bits;
  all.bands = plan.bands;
  return all;
}

Rounded unpack(const kernels::PackedMatrix& matrix, int threads) {
  Rounded out = make_rounded(matrix.rows, matrix.cols, matrix.bits, matrix.group, matrix.grid);
  const int64_t groups = groups_of(out);
  parallel_rows(out.N, threads, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t k = 0; k < out.K; ++k)
        out.codes[static_cast<std::size_t>(n * out.K + k)] =
            static_cast<uint8_t>(kernels::unpack_code(matrix, n, k));
      const int64_t strip = n / kernels::kStripRows, row = n % kernels::kStripRows;
      for (int64_t g = 0; g < groups; ++g) {
        const auto to = static_cast<std::size_t>(n * groups + g);
        const int64_t from = (strip * groups + g) * kernels::kStripRows + row;
        out.scales[to] = matrix.scales[from];
        if (!out.zeros.empty()) out.zeros[to] = matrix.zeros[from];
      }
    }
  });
  return out;
}

std::vector<Rounded> unpack_bands(const models::PackedData& packed) {
  std::vector<Rounded> bands;
  for (const kernels::PackedMatrix& band : band_views(packed)) bands.push_back(unpack(band, 1));
  return bands;
}

Rounded unpack(const models::PackedData& packed) {
  std::vector<Rounded> bands = unpack_bands(packed);
  assert(bands.size() == 1);
  return std::move(bands.front());
}

}  // namespace crumb::quant
