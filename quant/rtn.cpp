#include "quant/rtn.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/backend.h"
#include "models/errors.h"
#include "quant/parallel.h"
#include "quant/rounded.h"
#include "quant/scale_search.h"

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
  constexpr uint32_t kExponent = 0x7f800000u;  // all ones: NaN or infinity
  bool any = false;
  for (const float x : w) any |= (std::bit_cast<uint32_t>(x) & kExponent) == kExponent;
  if (!any) return;
  const auto bad = std::find_if_not(w.begin(), w.end(), [](float x) { return std::isfinite(x); });
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
  const bool rotated = options.rotation.hadamard != 0;
  const auto signs = rotated ? models::rotation_signs(options.rotation, K) : std::vector<float>();
  const auto rule = options.search == ScaleSearch::kMse ? ScaleRule::kMse : ScaleRule::kAbsMax;
  Rounded rounded = make_rounded(N, K, options.bits, options.group, options.grid);
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
      fit_row(row, {}, rule, n, &rounded);
      round_row(row, n, &rounded);
    }
  });
  return pack(rounded, options.rotation);
}

namespace {

kernels::PackedMatrix whole(const models::PackedData& data) {
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

}  // namespace

std::vector<kernels::PackedMatrix> band_views(const models::PackedData& data) {
  if (data.bands.empty()) return {whole(data)};
  return models::cut_bands(whole(data), data.bands);
}

kernels::PackedMatrix view(const models::PackedData& data) {
  if (!data.bands.empty()) throw std::invalid_argument("view of a matrix with bands");
  return whole(data);
}

}  // namespace crumb::quant
