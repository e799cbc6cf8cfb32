#include "quant/apq/predictor.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <random>

#include "quant/train/adam.h"
#include "quant/train/ops.h"

namespace crumb::quant::apq {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// Where a parameter of [rows, columns] stands among all.
struct Part {
  int64_t at = 0, rows = 0, columns = 0;
  template <class Floats>
  auto of(Floats& all) const {
    return std::span(all).subspan(size_of(at), size_of(rows * columns));
  }
};

struct Parts {
  Parts(int64_t n, int64_t m, int64_t h) {
    const auto take = [this](int64_t rows, int64_t columns) {
      const Part part{size, rows, columns};
      size += rows * columns;
      return part;
    };
    weight = {take(h, n), take(h, h), take(h, h), take(1, h)};
    bias = {take(1, h), take(1, h), take(1, h), take(1, 1)};
    branch = take(h, m);
    branch_bias = take(1, h);
  }
  std::array<Part, 4> weight, bias;
  Part branch, branch_bias;
  int64_t size = 0;
};

void relu(std::span<float> x) {
  for (float& v : x) v = std::max(v, 0.0f);
}
// Zero where the unit was off.
void relu_backward(std::span<const float> z, std::span<float> d) {
  for (std::size_t i = 0; i < d.size(); ++i)
    if (z[i] <= 0) d[i] = 0;
}

std::vector<float> stacked(std::span<const Example> examples, std::vector<float> Example::*member) {
  std::vector<float> rows;
  for (const Example& example : examples)
    rows.insert(rows.end(), (example.*member).begin(), (example.*member).end());
  return rows;
}

}  // namespace

struct Predictor::Activations {
  std::vector<float> architecture, widths;
  std::array<std::vector<float>, 3> hidden;  // [T, h] behind the ReLU
  std::vector<float> first;                  // hidden[0] before the branch is added
  std::vector<float> y;                      // [T]
};

Predictor::Predictor(int64_t architecture, int64_t widths, int64_t hidden, uint64_t seed)
    : n_(architecture), m_(widths), h_(hidden) {
  train::single_threaded_blas();
  const Parts parts(n_, m_, h_);
  w_.resize(size_of(parts.size));
  std::mt19937_64 rng(seed);
  for (const Part& part : parts.weight) {
    const double scale = std::sqrt(2.0 / static_cast<double>(part.columns));
    for (float& v : part.of(w_)) {
      // Sum of uniforms: a normal number that is the same with every library.
      double sum = -6;
      for (int i = 0; i < 12; ++i) sum += static_cast<double>(rng() >> 11) * 0x1p-53;
      v = static_cast<float>(scale * sum);
    }
  }
}

void Predictor::forward(std::span<const Example> examples, Activations& a) const {
  const Parts parts(n_, m_, h_);
  const std::size_t T = examples.size();
  a.architecture = stacked(examples, &Example::architecture);
  a.widths = stacked(examples, &Example::widths);
  assert(a.architecture.size() == T * size_of(n_));
  std::span<const float> in = a.architecture;
  for (std::size_t layer = 0; layer < 3; ++layer) {
    std::vector<float>& out = a.hidden[layer];
    out.resize(T * size_of(h_));
    train::linear(in, parts.weight[layer].of(w_), parts.bias[layer].of(w_),
                  parts.weight[layer].columns, out);
    relu(out);
    if (layer == 0) {
      a.first = out;
      if (!a.widths.empty()) {
        std::vector<float> added(out.size());
        train::linear(a.widths, parts.branch.of(w_), parts.branch_bias.of(w_), m_, added);
        for (std::size_t i = 0; i < out.size(); ++i) out[i] += added[i];
      }
    }
    in = out;
  }
  a.y.resize(T);
  train::linear(in, parts.weight[3].of(w_), parts.bias[3].of(w_), h_, a.y);
}

void Predictor::fit(std::span<const Example> examples, const FitOptions& options) {
  if (examples.empty()) return;
  const Parts parts(n_, m_, h_);
  const auto count = static_cast<double>(examples.size());
  double sum = 0, squares = 0;
  for (const Example& example : examples) sum += example.target;
  mean_ = sum / count;
  for (const Example& example : examples)
    squares += (example.target - mean_) * (example.target - mean_);
  deviation_ = squares > 0 ? std::sqrt(squares / count) : 1;
  std::vector<float> gradient(w_.size()), mean(w_.size()), square(w_.size());
  train::AdamOptions adam;
  adam.beta2 = 0.999;
  adam.decay = options.decay;
  Activations a;
  for (int step = 1; step <= options.steps; ++step) {
    forward(examples, a);
    std::ranges::fill(gradient, 0.0f);
    std::vector<float> dy(examples.size());
    for (std::size_t t = 0; t < dy.size(); ++t)
      dy[t] = static_cast<float>(
          2 * (static_cast<double>(a.y[t]) - (examples[t].target - mean_) / deviation_) / count);
    std::array<std::vector<float>, 3> d;
    for (auto& one : d) one.assign(a.hidden[0].size(), 0.0f);
    train::linear_backward(a.hidden[2], parts.weight[3].of(w_), h_, dy,
                           {d[2], parts.weight[3].of(gradient), parts.bias[3].of(gradient)});
    for (std::size_t layer = 2; layer > 0; --layer) {
      relu_backward(a.hidden[layer], d[layer]);
      train::linear_backward(
          a.hidden[layer - 1], parts.weight[layer].of(w_), h_, d[layer],
          {d[layer - 1], parts.weight[layer].of(gradient), parts.bias[layer].of(gradient)});
    }
    if (!a.widths.empty())
      train::linear_backward(a.widths, parts.branch.of(w_), m_, d[0],
                             {{}, parts.branch.of(gradient), parts.branch_bias.of(gradient)});
    relu_backward(a.first, d[0]);
    train::linear_backward(a.architecture, parts.weight[0].of(w_), n_, d[0],
                           {{}, parts.weight[0].of(gradient), parts.bias[0].of(gradient)});
    const double rate = options.rate * train::cosine_schedule(step, options.steps, 0, 0.1);
    train::adam(train::adam_step(adam, step, rate), gradient, 1.0f, w_, mean, square);
  }
}

std::vector<double> Predictor::predict(std::span<const Example> examples) const {
  if (examples.empty()) return {};
  Activations a;
  forward(examples, a);
  std::vector<double> y;
  for (const float v : a.y) y.push_back(mean_ + deviation_ * static_cast<double>(v));
  return y;
}

double kendall(std::span<const double> x, std::span<const double> y) {
  int64_t concordant = 0, discordant = 0, tied_x = 0, tied_y = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      const double a = x[i] - x[j], b = y[i] - y[j];
      if (a == 0) ++tied_x;
      if (b == 0) ++tied_y;
      if (a * b > 0) ++concordant;
      if (a * b < 0) ++discordant;
    }
  const auto pairs =
      static_cast<double>(x.size() * (x.size() - std::min<std::size_t>(1, x.size())) / 2);
  const double free =
      std::sqrt((pairs - static_cast<double>(tied_x)) * (pairs - static_cast<double>(tied_y)));
  return free > 0 ? static_cast<double>(concordant - discordant) / free : 0;
}

}  // namespace crumb::quant::apq
