#include "quant/importance.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>

#include "quant/model_walk.h"
#include "quant/parallel.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

double square(float v) { return static_cast<double>(v) * static_cast<double>(v); }

// Sums over the tokens of one window.
struct Sums {
  std::vector<double> units, heads;  // of squares
  double cosines = 0;
};

// [D, columns of one KV head's queries] of W_o, and of o the same columns.
std::vector<float> columns_of(std::span<const float> x, int64_t K, int64_t first, int64_t count) {
  std::vector<float> out;
  for (std::size_t row = 0; row < x.size(); row += size_of(K))
    out.insert(out.end(), x.begin() + static_cast<int64_t>(row) + first,
               x.begin() + static_cast<int64_t>(row) + first + count);
  return out;
}

Sums sums_of(const models::ModelConfig& c, const train::BlockWeights& w,
             const train::BlockActivations& a, std::span<const float> x, std::span<const float> y) {
  Sums sums{std::vector<double>(size_of(c.ffn)), std::vector<double>(size_of(c.kv_heads)), 0};
  for (std::size_t i = 0; i < a.down_in.size(); ++i)
    sums.units[i % sums.units.size()] += square(a.down_in[i]);
  const int64_t K = c.heads * c.head_dim, own = K / c.kv_heads;
  std::vector<float> added(x.size());
  for (int64_t h = 0; h < c.kv_heads; ++h) {
    train::linear(columns_of(a.o_in, K, h * own, own), columns_of(w.o, K, h * own, own), {}, own,
                  added);
    for (const float v : added) sums.heads[size_of(h)] += square(v);
  }
  const auto D = size_of(c.dim);
  for (std::size_t t = 0; t < x.size(); t += D) {
    double xy = 0, xx = 0, yy = 0;
    for (std::size_t d = t; d < t + D; ++d) {
      xy += static_cast<double>(x[d]) * static_cast<double>(y[d]);
      xx += square(x[d]);
      yy += square(y[d]);
    }
    sums.cosines += xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
  }
  return sums;
}

LayerImportance importance_of(const models::ModelConfig& c, const train::BlockWeights& w,
                              std::span<const Sums> windows, int64_t tokens) {
  LayerImportance layer{std::vector<double>(size_of(c.ffn)),
                        std::vector<double>(size_of(c.kv_heads)), 0};
  double cosines = 0;
  for (const Sums& one : windows) {  // in their order, whatever the threads
    std::ranges::transform(layer.units, one.units, layer.units.begin(), std::plus<>());
    std::ranges::transform(layer.heads, one.heads, layer.heads.begin(), std::plus<>());
    cosines += one.cosines;
  }
  const auto n = static_cast<double>(tokens);
  std::vector<double> column(size_of(c.ffn));  // |W_down[:, j]|^2
  for (std::size_t i = 0; i < w.down.size(); ++i) column[i % column.size()] += square(w.down[i]);
  for (std::size_t j = 0; j < column.size(); ++j)
    layer.units[j] = std::sqrt(column[j] * layer.units[j] / n);
  for (double& head : layer.heads) head = std::sqrt(head / n);
  layer.influence = 1 - cosines / n;
  return layer;
}

// The `count` largest, in the order they stand.
std::vector<int64_t> largest(std::span<const double> values, int64_t count) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::ranges::stable_sort(order, std::greater<>{}, [&](int64_t i) { return values[size_of(i)]; });
  order.resize(size_of(std::min<int64_t>(count, std::ssize(order))));
  std::ranges::sort(order);
  return order;
}

}  // namespace

std::vector<LayerImportance> measure_importance(const models::SourceModel& source,
                                                const CalibrationWindows& windows, int threads,
                                                const ProgressFn& progress) {
  const models::ModelConfig& c = source.config;
  models::require_whole(c, "pruning");
  models::require_blind(c, "pruning");
  train::single_threaded_blas();
  const train::BlockContext context(c, windows.S);
  std::vector<float> stream = embedded(source, windows.ids);
  const auto size = size_of(windows.S * c.dim);
  std::vector<LayerImportance> all;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    if (progress && !progress({"importance", "block " + std::to_string(layer), layer, c.layers}))
      throw Interrupted{};
    const train::BlockWeights weights = train::read_block(source, layer);
    std::vector<Sums> sums(size_of(windows.count()));
    parallel_rows(windows.count(), threads, [&](int64_t begin, int64_t end) {
      train::BlockActivations activations(c, windows.S);
      std::vector<float> y(size);
      for (int64_t i = begin; i < end; ++i) {
        const auto x = std::span(stream).subspan(size_of(i) * size, size);
        train::block_forward(context, weights, x, activations, y);
        sums[size_of(i)] = sums_of(c, weights, activations, x, y);
        std::ranges::copy(y, x.begin());
      }
    });
    all.push_back(importance_of(c, weights, sums, std::ssize(windows.ids)));
  }
  return all;
}

KeptLayer most_important(const LayerImportance& importance, int64_t source, int64_t units,
                         int64_t heads) {
  return {source, largest(importance.units, units), largest(importance.heads, heads)};
}

}  // namespace crumb::quant
