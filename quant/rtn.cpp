#include "quant/rtn.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <vector>

#include "kernels/backend.h"
#include "kernels/float16.h"
#include "kernels/pack.h"
#include "models/errors.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr int64_t kSmallestBlock = 32;
constexpr int64_t kLargestBlock = 512;

[[noreturn]] void refuse(const std::string& what, const std::string& name, int64_t N, int64_t K,
                         const std::string& expected, int64_t found) {
  throw Error(ExitCode::kUsage, "unsupported " + what + " (" + name + " [" + std::to_string(N) +
                                    ", " + std::to_string(K) + "]: expected " + expected +
                                    ", found " + std::to_string(found) + ")");
}

// Codes, scales and zeros in row order, before packing.
struct Rounded {
  std::vector<uint8_t> codes;    // [N, K]
  std::vector<uint16_t> scales;  // [N, groups]
  std::vector<uint8_t> zeros;    // [N, groups], kAsym only
};

// One row of K weights, already rotated.
void round_row(std::span<const float> row, int64_t group, int64_t n, const RtnOptions& options,
               Rounded& out) {
  const auto K = std::ssize(row);
  const int64_t groups = kernels::group_count(K, group);
  for (int64_t g = 0; g < groups; ++g) {
    const auto begin = static_cast<std::size_t>(g * group);
    const auto length = static_cast<std::size_t>(std::min(group, K - g * group));
    const auto w = row.subspan(begin, length);
    const GroupFit fit = fit_group(w, options.bits, options.grid, options.search);
    const auto codes =
        std::span(out.codes).subspan(static_cast<std::size_t>(n * K) + begin, length);
    round_group(w, fit, options.bits, codes);
    const auto at = static_cast<std::size_t>(n * groups + g);
    out.scales[at] = kernels::f32_to_f16(fit.scale);
    if (options.grid == kernels::Grid::kAsym) out.zeros[at] = static_cast<uint8_t>(fit.zero2 / 2);
  }
}

}  // namespace

void validate(const RtnOptions& options, int64_t N, int64_t K, const std::string& name) {
  if (!kernels::valid_bits(options.bits)) refuse("bits", name, N, K, "2, 3, 4 or 8", options.bits);
  if (K < 1 || K > kernels::kMaxColumns)
    refuse("number of columns", name, N, K, "1.." + std::to_string(kernels::kMaxColumns), K);
  if (N < 1) refuse("number of rows", name, N, K, "at least 1", N);
  if (options.group != 0 && !kernels::valid_group(options.group, K))
    refuse("group", name, N, K, "0 (a row), or 32, 64 or 128 up to the row's length",
           options.group);
  const int64_t block = options.rotation.hadamard;
  if (block == 0) return;
  const bool in_range = block >= kSmallestBlock && block <= kLargestBlock;
  if (!in_range || !std::has_single_bit(static_cast<uint64_t>(block)) || K % block != 0)
    refuse("Hadamard block", name, N, K, "a power of two in 32..512 that divides the row", block);
}

void require_finite(std::span<const float> w, int64_t K, const std::string& name) {
  const auto bad = std::find_if_not(w.begin(), w.end(), [](float x) { return std::isfinite(x); });
  if (bad == w.end()) return;
  const int64_t index = bad - w.begin();
  const std::string where =
      "row " + std::to_string(index / K) + ", column " + std::to_string(index % K);
  throw Error(ExitCode::kNumeric,
              "weight is not finite (" + name + " " + where + ": expected a finite number, found " +
                  (std::isnan(*bad) ? "NaN"
                   : *bad > 0       ? "+infinity"
                                    : "-infinity") +
                  ")",
              "the source model is damaged or did not finish training; import it again");
}

void rotate_row(std::span<float> row, const models::Rotation& rotation,
                std::span<const float> signs) {
  assert(signs.size() == row.size());
  // The scalar backend is the specification and always there; every other one gives the same bits.
  kernels::backends().back()->hadamard(row.data(), signs.data(), std::ssize(row),
                                       rotation.hadamard);
}

models::PackedData rtn(std::span<const float> w, int64_t N, int64_t K, const RtnOptions& options,
                       const std::string& name, int threads) {
  validate(options, N, K, name);
  assert(std::ssize(w) == N * K);
  const int64_t group = options.group == 0 ? K : options.group;
  const int64_t groups = kernels::group_count(K, group);
  const bool asym = options.grid == kernels::Grid::kAsym;
  const bool rotated = options.rotation.hadamard != 0;
  const auto signs = rotated ? models::rotation_signs(options.rotation, K) : std::vector<float>();

  Rounded rounded;
  rounded.codes.resize(static_cast<std::size_t>(N * K));
  rounded.scales.resize(static_cast<std::size_t>(N * groups));
  if (asym) rounded.zeros.resize(rounded.scales.size());
  require_finite(w, K, name);
  parallel_rows(N, threads, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<std::size_t>(rotated ? K : 0));
    for (int64_t n = begin; n < end; ++n) {
      auto row = w.subspan(static_cast<std::size_t>(n * K), static_cast<std::size_t>(K));
      if (rotated) {
        std::copy(row.begin(), row.end(), scratch.begin());
        rotate_row(scratch, options.rotation, signs);
        // A block's sum of finite weights may overflow.
        require_finite(scratch, K, name + " (rotated, source row " + std::to_string(n) + ")");
        row = scratch;
      }
      round_row(row, group, n, options, rounded);
    }
  });

  models::PackedData packed;
  packed.rows = N;
  packed.cols = K;
  packed.group = group;
  packed.bits = options.bits;
  packed.grid = options.grid;
  packed.rotation = options.rotation;
  const int64_t strips = kernels::strip_count(N);
  packed.codes.resize(
      static_cast<std::size_t>(strips * kernels::strip_code_bytes(K, options.bits)));
  kernels::pack_codes(rounded.codes, N, K, options.bits, packed.codes);
  packed.scales.resize(static_cast<std::size_t>(strips * groups * kernels::kStripRows));
  kernels::pack_groups(std::span<const uint16_t>(rounded.scales), N, groups, uint16_t{0},
                       packed.scales);
  if (asym) {
    packed.zeros.resize(packed.scales.size());
    kernels::pack_groups(std::span<const uint8_t>(rounded.zeros), N, groups, uint8_t{0},
                         packed.zeros);
  }
  return packed;
}

kernels::PackedMatrix view(const models::PackedData& data) {
  kernels::PackedMatrix matrix;
  matrix.codes = data.codes.data();
  matrix.scales = data.scales.data();
  matrix.zeros = data.zeros.empty() ? nullptr : data.zeros.data();
  matrix.rows = data.rows;
  matrix.cols = data.cols;
  matrix.group = data.group;
  matrix.bits = data.bits;
  matrix.grid = data.grid;
  return matrix;
}

}  // namespace crumb::quant
