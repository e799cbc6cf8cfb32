#include "quant/output_moments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string_view>
#include <utility>

#include "models/errors.h"
#include "models/tensors.h"
#include "quant/model_walk.h"
#include "quant/train/block.h"

namespace crumb::quant {
namespace {

// A matrix's output gradient among those of the block; o and down add to the residual stream, whose
// gradients are d.mid and dy.
struct OutputGradient {
  std::string_view suffix;
  std::vector<float> train::BlockActivations::*member;  // null: dy
};
using Activations = train::BlockActivations;
constexpr std::array<OutputGradient, 7> kOutputs = {{{"self_attn.q_proj", &Activations::q},
                                                     {"self_attn.k_proj", &Activations::k},
                                                     {"self_attn.v_proj", &Activations::v},
                                                     {"self_attn.o_proj", &Activations::mid},
                                                     {"mlp.gate_proj", &Activations::gate},
                                                     {"mlp.up_proj", &Activations::up},
                                                     {"mlp.down_proj", nullptr}}};

// sums[r] += sum_t g[t, r]^2.
void add_squares(std::span<const float> g, std::vector<double>* sums) {
  for (std::size_t t = 0; t < g.size(); t += sums->size())
    for (std::size_t r = 0; r < sums->size(); ++r)
      (*sums)[r] += static_cast<double>(g[t + r]) * static_cast<double>(g[t + r]);
}

// [tokens]: the squares of every token's gradient [rows], summed.
std::vector<float> token_squares(std::span<const float> g, std::size_t rows) {
  std::vector<float> squares;
  for (std::size_t t = 0; t < g.size(); t += rows) {
    const auto row = g.subspan(t, rows);
    squares.push_back(std::inner_product(row.begin(), row.end(), row.begin(), 0.0f));
  }
  return squares;
}

// Of one window, by output.
struct WindowSums {
  std::array<std::vector<double>, kOutputs.size()> rows;
  std::array<std::vector<float>, kOutputs.size()> tokens;
};

WindowSums sums_of(const WindowBack& back, int64_t S) {
  WindowSums sums;
  for (std::size_t i = 0; i < kOutputs.size(); ++i) {
    const std::span<const float> g =
        kOutputs[i].member == nullptr ? back.above
                                      : std::span<const float>(back.gradients.*kOutputs[i].member);
    sums.rows[i].resize(g.size() / static_cast<std::size_t>(S));
    add_squares(g, &sums.rows[i]);
    sums.tokens[i] = token_squares(g, sums.rows[i].size());
  }
  return sums;
}

// The windows' sums in their order, whatever the threads.
WindowSums total_of(std::vector<WindowSums>& each) {
  WindowSums total = std::move(each.front());
  for (std::size_t m = 0; m < kOutputs.size(); ++m)
    for (std::size_t i = 1; i < each.size(); ++i) {
      for (std::size_t r = 0; r < total.rows[m].size(); ++r) total.rows[m][r] += each[i].rows[m][r];
      total.tokens[m].insert(total.tokens[m].end(), each[i].tokens[m].begin(),
                             each[i].tokens[m].end());
    }
  return total;
}

void keep_means(const WindowSums& sums, int64_t layer, int64_t tokens, OutputMoments* out) {
  for (std::size_t i = 0; i < kOutputs.size(); ++i) {
    const std::string name = models::layer_tensor(layer, std::string(kOutputs[i].suffix));
    out->tokens[name] = sums.tokens[i];
    auto& rows = out->rows[name];
    for (const double sum : sums.rows[i]) {
      if (!std::isfinite(sum))
        throw Error(ExitCode::kNumeric,
                    "gradient is not finite (sensitivity: output of '" + name + "')");
      rows.push_back(static_cast<float>(sum / static_cast<double>(tokens)));
    }
  }
}

}  // namespace

OutputMoments output_moments(const models::SourceModel& source, const CalibrationWindows& windows,
                             int64_t most_windows, uint64_t seed, int threads,
                             const ProgressFn& progress) {
  ModelWalk walk(source, windows, most_windows, threads, progress, "sensitivity");
  walk.forward();
  OutputMoments out;
  std::vector<WindowSums> each(static_cast<std::size_t>(walk.windows()));
  walk.backward(
      walk.head_gradient(seed, &out.labels), false,
      [&](const WindowBack& back) {
        each[static_cast<std::size_t>(back.window)] = sums_of(back, walk.S());
      },
      [&](int64_t layer) { keep_means(total_of(each), layer, walk.windows() * walk.S(), &out); });
  walk.done();
  return out;
}

}  // namespace crumb::quant
