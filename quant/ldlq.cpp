#include "quant/ldlq.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr int64_t kRows = 64;    // of a tile: 64 x 128 doubles of a block stay in L2
constexpr int64_t kBlock = 128;  // columns between two dgemms

// Rows [row0, row0 + rows) of the matrix, one column of the tile after the other in the order of
// rounding: [K, kRows]. Rows past the last one are zero.
struct Tile {
  int64_t row0 = 0;
  int64_t rows = 0;
  std::vector<double> w;      // the weights
  std::vector<double> error;  // w - w' of the columns done
};

// One column of levels: value = scale * (code - zero).
struct Levels {
  double inverse[kRows];
  double scale[kRows];
  double zero[kRows];
};

struct Job {
  std::span<const float> w;
  const Factor& factor;
  ScaleRule rule;
  bool updated;
  int greedy_passes;
  Rounded& out;  // rows of different tiles are written by different threads
};

void load(const Job& job, int64_t row0, Tile* tile) {
  const int64_t K = job.factor.K;
  tile->row0 = row0;
  tile->rows = std::min(kRows, job.out.N - row0);
  tile->w.assign(static_cast<std::size_t>(K * kRows), 0);
  tile->error.assign(static_cast<std::size_t>(K * kRows), 0);
  for (int64_t k = 0; k < K; ++k) {
    const int64_t column = job.factor.order[static_cast<std::size_t>(k)];
    double* to = tile->w.data() + k * kRows;
    for (int64_t r = 0; r < tile->rows; ++r)
      to[r] = static_cast<double>(job.w[static_cast<std::size_t>((row0 + r) * K + column)]);
  }
}

Levels levels_of(const Rounded& out, const Tile& tile, int64_t group) {
  Levels levels{};
  for (int64_t r = 0; r < tile.rows; ++r) {
    const GroupFit fit = fit_of(out, tile.row0 + r, group);
    levels.scale[r] = static_cast<double>(fit.scale);
    levels.inverse[r] = fit.scale > 0 ? 1 / levels.scale[r] : 0;
    levels.zero[r] = 0.5 * fit.zero2;
  }
  return levels;
}

// target [kRows] -> nearest level, as a value and a code.
void round_column(const double* target, const Levels& levels, double top, double* value,
                  double* code) {
  for (int64_t r = 0; r < kRows; ++r) {
    double c = target[r] * levels.inverse[r] + levels.zero[r] + 0.5;
    c = c > 0 ? c : 0;
    c = c < top ? c : top;
    code[r] = static_cast<double>(static_cast<int32_t>(c));
    value[r] = levels.scale[r] * (code[r] - levels.zero[r]);
  }
}

void store_codes(const Job& job, const Tile& tile, int64_t column, const double* code) {
  for (int64_t r = 0; r < tile.rows; ++r)
    job.out.codes[static_cast<std::size_t>((tile.row0 + r) * job.out.K + column)] =
        static_cast<uint8_t>(code[r]);
}

void add_scaled(double factor, const double* x, double* y) {
  for (int64_t r = 0; r < kRows; ++r) y[r] += factor * x[r];
}

// The scales of the columns [begin, end) of one group, of GPTQ's updated weights: as long as no
// column of the group is rounded, column j stands at t_j with each earlier one of the group at its
// own t_i, that is, with error w_i - t_i.
void fit_updated(const Job& job, const Tile& tile, int64_t begin, int64_t end,
                 const double* targets) {
  const int64_t K = job.factor.K;
  const auto size = static_cast<std::size_t>(end - begin);
  std::vector<double> updated(targets, targets + size * kRows);
  double error[kRows];
  for (int64_t i = begin; i < end; ++i) {
    const double* at = updated.data() + (i - begin) * kRows;
    for (int64_t r = 0; r < kRows; ++r)
      error[r] = tile.w[static_cast<std::size_t>(i * kRows + r)] - at[r];
    for (int64_t j = i + 1; j < end; ++j)
      add_scaled(job.factor.M[static_cast<std::size_t>(i * K + j)], error,
                 updated.data() + (j - begin) * kRows);
  }
  const auto h = std::span(job.factor.diagonal).subspan(static_cast<std::size_t>(begin), size);
  std::vector<float> row(size);
  for (int64_t r = 0; r < tile.rows; ++r) {
    for (std::size_t j = 0; j < size; ++j)
      row[j] = static_cast<float>(updated[j * kRows + static_cast<std::size_t>(r)]);
    set_fit(&job.out, tile.row0 + r, begin / job.out.group,
            fit_group(row, h, job.out.bits, job.out.grid, job.rule));
  }
}

// Columns [begin, end): targets [end - begin, kRows] hold what the columns before `begin` left.
void round_block(const Job& job, int64_t begin, int64_t end, double* targets, Tile* tile) {
  const int64_t K = job.factor.K;
  const double top = (1 << job.out.bits) - 1;
  Levels levels;
  int64_t group = -1;
  double value[kRows];
  double code[kRows];
  for (int64_t j = begin; j < end; ++j) {
    const double* target = targets + (j - begin) * kRows;
    const int64_t column = job.factor.order[static_cast<std::size_t>(j)];
    if (job.updated && column % job.out.group == 0)
      fit_updated(job, *tile, j, std::min(K, j + job.out.group), target);
    if (column / job.out.group != group) {
      group = column / job.out.group;
      levels = levels_of(job.out, *tile, group);
    }
    round_column(target, levels, top, value, code);
    store_codes(job, *tile, column, code);
    double* error = tile->error.data() + j * kRows;
    for (int64_t r = 0; r < kRows; ++r)
      error[r] = tile->w[static_cast<std::size_t>(j * kRows + r)] - value[r];
    const double* M = job.factor.M.data() + j * K;
    for (int64_t i = j + 1; i < end; ++i) add_scaled(M[i], error, targets + (i - begin) * kRows);
  }
}

void round_tile(const Job& job, Tile* tile, std::vector<double>* targets) {
  const int64_t K = job.factor.K;
  for (int64_t begin = 0; begin < K; begin += kBlock) {
    const int64_t end = std::min(K, begin + kBlock);
    std::copy_n(tile->w.data() + begin * kRows, (end - begin) * kRows, targets->data());
    if (begin > 0)
      gemm({end - begin, kRows, begin, true}, 1.0, job.factor.M.data() + begin, K,
           tile->error.data(), kRows, 1.0, targets->data(), kRows);
    round_block(job, begin, end, targets->data(), tile);
  }
}

// One greedy pass. gains [kBlock, kRows] is E H of the block at hand, kept up to date inside it.
// Returns whether a code changed.
bool greedy_pass(const Job& job, Tile* tile, std::vector<double>* gains) {
  const int64_t K = job.factor.K;
  const double* H = job.factor.H.data();
  const double top = (1 << job.out.bits) - 1;
  bool changed = false;
  Levels levels;
  int64_t group = -1;
  double target[kRows];
  double value[kRows];
  double code[kRows];
  for (int64_t begin = 0; begin < K; begin += kBlock) {
    const int64_t end = std::min(K, begin + kBlock);
    gemm({end - begin, kRows, K, true}, 1.0, H + begin, K, tile->error.data(), kRows, 0.0,
         gains->data(), kRows);
    for (int64_t j = begin; j < end; ++j) {
      const int64_t column = job.factor.order[static_cast<std::size_t>(j)];
      const double* w = tile->w.data() + j * kRows;
      double* error = tile->error.data() + j * kRows;
      const double* gain = gains->data() + (j - begin) * kRows;
      const double inverse = 1 / H[j * K + j];
      for (int64_t r = 0; r < kRows; ++r) target[r] = w[r] - error[r] + gain[r] * inverse;
      if (column / job.out.group != group) {
        group = column / job.out.group;
        levels = levels_of(job.out, *tile, group);
      }
      round_column(target, levels, top, value, code);
      store_codes(job, *tile, column, code);
      double moved[kRows];
      bool any = false;
      for (int64_t r = 0; r < kRows; ++r) {
        moved[r] = w[r] - value[r] - error[r];
        any = any || moved[r] != 0;
        error[r] += moved[r];
      }
      if (!any) continue;
      changed = true;
      for (int64_t i = j + 1; i < end; ++i)
        add_scaled(H[j * K + i], moved, gains->data() + (i - begin) * kRows);
    }
  }
  return changed;
}

void run(const Job& job, int threads) {
  use_one_blas_thread();
  const int64_t tiles = (job.out.N + kRows - 1) / kRows;
  parallel_rows(tiles, threads, [&](int64_t first, int64_t last) {
    Tile tile;
    std::vector<double> block(static_cast<std::size_t>(kBlock * kRows));
    for (int64_t t = first; t < last; ++t) {
      load(job, t * kRows, &tile);
      round_tile(job, &tile, &block);
      for (int pass = 0; pass < job.greedy_passes; ++pass)
        if (!greedy_pass(job, &tile, &block)) break;
    }
  });
}

}  // namespace

Rounded ldlq(std::span<const float> w, int64_t N, int64_t K, const Factor& factor,
             const LdlqOptions& options, int threads) {
  assert(std::ssize(w) == N * K && factor.K == K);
  Rounded out = make_rounded(N, K, options.bits, options.group, options.grid);
  const bool updated = options.scales == GroupScales::kUpdated && out.group < K;
  assert(!updated || std::is_sorted(factor.order.begin(), factor.order.end()));
  if (!updated)
    out = fit_scales(w, N, K, factor.diagonal,
                     {options.bits, options.group, options.grid, options.rule}, threads);
  run({w, factor, options.rule, updated, options.greedy_passes, out}, threads);
  return out;
}

Rounded ldlq_on(std::span<const float> w, const Factor& factor, Rounded scales, int greedy_passes,
                int threads) {
  assert(std::ssize(w) == scales.N * scales.K && factor.K == scales.K);
  run({w, factor, ScaleRule::kAbsMax, false, greedy_passes, scales}, threads);
  return scales;
}

}  // namespace crumb::quant
