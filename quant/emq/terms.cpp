#include "quant/emq/terms.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/pack.h"
#include "models/tensors.h"
#include "quant/block_job.h"
#include "quant/model_walk.h"
#include "quant/rtn.h"

namespace crumb::quant::emq {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// Where the sample of a matrix of so many weights stands, growing, without repeats.
std::vector<int64_t> sample_of(int64_t weights, int64_t samples, uint64_t seed) {
  std::vector<int64_t> at;
  const int64_t n = std::min(samples, weights);
  std::mt19937_64 rng(seed);
  for (int64_t i = 0; i < n; ++i) {  // one in each of n equal runs
    const int64_t begin = i * weights / n, end = (i + 1) * weights / n;
    at.push_back(begin + static_cast<int64_t>(rng() % static_cast<uint64_t>(end - begin)));
  }
  return at;
}

// Sums over windows at the samples, in double.
struct Sums {
  std::vector<double> gradient, square;  // [samples]
  std::vector<double> activation;        // [K], over tokens
};

void add_window(const WindowBack& back, const BlockMatrix& m, std::span<const int64_t> samples,
                int64_t K, Sums& sums) {
  const std::vector<float>& g = back.weight_gradients.*m.member;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto value = static_cast<double>(g[size_of(samples[i])]);
    sums.gradient[i] += value;
    sums.square[i] += value * value;
  }
  const auto x = train::linear_input(back.activations, m.input);
  for (std::size_t t = 0; t < x.size(); ++t)
    sums.activation[t % size_of(K)] += static_cast<double>(std::abs(x[t]));
}

Sums empty_sums(std::size_t samples, int64_t K) {
  return {std::vector<double>(samples), std::vector<double>(samples),
          std::vector<double>(size_of(K))};
}

// In the order of windows, whatever the threads.
Sums total_of(const std::vector<Sums>& windows) {
  Sums total = windows.front();
  for (std::size_t w = 1; w < windows.size(); ++w) {
    const auto add = [](const std::vector<double>& from, std::vector<double>& to) {
      for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
    };
    add(windows[w].gradient, total.gradient);
    add(windows[w].square, total.square);
    add(windows[w].activation, total.activation);
  }
  return total;
}

void fill_errors(std::span<const float> w, int64_t N, int64_t K, std::span<const int64_t> samples,
                 const Method& method, const TermOptions& o, MatrixTerms& terms) {
  const ScaleSearch search =
      method.rule == ScaleRule::kAbsMax ? ScaleSearch::kAbsMax : ScaleSearch::kMse;
  for (const int bits : o.widths) {
    const models::PackedData data =
        rtn(w, N, K, {bits, method.group, method.grid, search, {}}, terms.name, o.threads);
    const kernels::PackedMatrix packed = view(data);
    std::vector<float> row(size_of(K));
    auto& error = terms.error.emplace_back();
    int64_t n = -1;
    for (const int64_t at : samples) {
      if (at / K != n) kernels::dequantize_row(packed, n = at / K, row);
      error.push_back(row[size_of(at % K)] - w[size_of(at)]);
    }
  }
}

}  // namespace

std::vector<MatrixTerms> measure_terms(const models::SourceModel& source,
                                       const CalibrationWindows& windows, const Method& method,
                                       const TermOptions& o, const ProgressFn& progress) {
  ModelWalk walk(source, windows, o.windows, o.threads, progress, "terms");
  const auto matrices = block_matrices();
  const auto layers = source.config.layers;
  std::vector<MatrixTerms> all(size_of(layers) * matrices.size());
  // Of the block at hand, by matrix and window.
  std::vector<std::vector<Sums>> sums(matrices.size(), std::vector<Sums>(size_of(walk.windows())));
  const auto place = [&](int64_t layer, std::size_t m) {
    return size_of(layer) * matrices.size() + m;
  };
  const auto samples_of = [&](int64_t layer, std::size_t m, std::size_t weights) {
    return sample_of(static_cast<int64_t>(weights), o.samples, o.seed + place(layer, m));
  };
  walk.forward();
  std::vector<int32_t> labels;
  walk.backward(
      walk.head_gradient(o.seed, &labels), true,
      [&](const WindowBack& back) {
        for (std::size_t m = 0; m < matrices.size(); ++m) {
          const int64_t K = train::linear_input_width(train::shape_of(source.config, back.weights),
                                                      matrices[m].input);
          const auto at = samples_of(back.layer, m, (back.weights.*matrices[m].member).size());
          Sums& own = sums[m][size_of(back.window)];
          own = empty_sums(at.size(), K);
          add_window(back, matrices[m], at, K, own);
        }
      },
      [&](int64_t layer) {
        const train::BlockWeights weights = train::read_block(source, layer);
        for (std::size_t m = 0; m < matrices.size(); ++m) {
          const std::vector<float>& w = weights.*matrices[m].member;
          const int64_t K =
              train::linear_input_width(train::shape_of(source.config, weights), matrices[m].input);
          const auto at = samples_of(layer, m, w.size());
          const Sums total = total_of(sums[m]);
          MatrixTerms& terms = all[place(layer, m)];
          terms.name = models::layer_tensor(layer, std::string(matrices[m].suffix));
          terms.weights = std::ssize(w);
          const auto count = static_cast<double>(walk.windows());
          for (std::size_t i = 0; i < at.size(); ++i) {
            const auto column = size_of(at[i] % K);
            terms.fixed[0].push_back(w[size_of(at[i])]);
            terms.fixed[1].push_back(static_cast<float>(total.activation[column] /
                                                        (count * static_cast<double>(walk.S()))));
            terms.fixed[2].push_back(static_cast<float>(total.gradient[i] / count));
            terms.fixed[3].push_back(static_cast<float>(total.square[i] / count));
          }
          fill_errors(w, std::ssize(w) / K, K, at, method, o, terms);
        }
      });
  walk.done();
  return all;
}

}  // namespace crumb::quant::emq
