#include "quant/output_moments.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/errors.h"
#include "models/tiny_model.h"
#include "quant/train/block.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

CalibrationWindows some_windows(const models::ModelConfig& config, int64_t count, int64_t S) {
  CalibrationWindows windows;
  windows.S = S;
  for (int64_t i = 0; i < count * S; ++i)
    windows.ids.push_back(static_cast<int32_t>((i * 37 + 11) % config.vocab));
  return windows;
}

// -sum_t log p(label_t) of one window whose stream enters block 1 as x.
double loss_from_block1(const models::SourceModel& source, const std::vector<float>& x, int64_t S,
                        std::span<const int32_t> labels) {
  const auto& c = source.config;
  const train::BlockContext context(c, S);
  train::BlockActivations activations(c, S);
  std::vector<float> y(x.size()), normed(x.size());
  train::block_forward(context, train::read_block(source, 1), x, activations, y);
  std::vector<float> gain(static_cast<std::size_t>(c.dim));
  std::vector<float> head(static_cast<std::size_t>(c.vocab * c.dim));
  source.read("model.norm.weight", gain);
  source.read(c.tied_head ? "model.embed_tokens" : "lm_head", head);
  train::rmsnorm(y, gain, c.norm_eps, normed);
  std::vector<float> z(static_cast<std::size_t>(S * c.vocab));
  train::linear(normed, head, {}, c.dim, z);
  double loss = 0;
  for (int64_t t = 0; t < S; ++t) {
    const float* row = z.data() + t * c.vocab;
    double sum = 0;
    for (int64_t v = 0; v < c.vocab; ++v) sum += std::exp(static_cast<double>(row[v]));
    loss += std::log(sum) - static_cast<double>(row[labels[static_cast<std::size_t>(t)]]);
  }
  return loss;
}

// The output of block 0's down_proj is a summand of the stream that enters block 1: its gradients
// by finite differences of the whole rest of the model, for the labels that were drawn.
TEST(OutputMoments, OfDownProjByFiniteDifferences) {
  for (const bool tied : {true, false}) {
    models::TinyOptions tiny;
    tiny.tied_head = tied;
    const auto source = models::tiny_model(tiny);
    const auto& c = source.config;
    ASSERT_EQ(c.layers, 2);
    constexpr int64_t S = 4;
    const auto windows = some_windows(c, 2, S);
    const OutputMoments found = output_moments(source, windows, 5, 3, 2, {});
    ASSERT_EQ(found.labels.size(), 2u * S);
    std::vector<double> expected(static_cast<std::size_t>(c.dim));
    for (int64_t window = 0; window < 2; ++window) {
      std::vector<float> table(static_cast<std::size_t>(c.vocab * c.dim)), x;
      source.read("model.embed_tokens", table);
      for (int64_t t = 0; t < S; ++t) {
        const int64_t id = windows.ids[static_cast<std::size_t>(window * S + t)];
        x.insert(x.end(), table.begin() + id * c.dim, table.begin() + (id + 1) * c.dim);
      }
      const train::BlockContext context(c, S);
      train::BlockActivations activations(c, S);
      train::block_forward(context, train::read_block(source, 0), x, activations, x);
      const auto labels = std::span(found.labels).subspan(static_cast<std::size_t>(window * S), S);
      for (std::size_t i = 0; i < x.size(); ++i) {
        constexpr float kStep = 4e-3f;
        auto moved = x;
        moved[i] = x[i] + kStep;
        const double above = loss_from_block1(source, moved, S, labels);
        moved[i] = x[i] - kStep;
        const double below = loss_from_block1(source, moved, S, labels);
        const double g = (above - below) / (2 * static_cast<double>(kStep));
        expected[i % static_cast<std::size_t>(c.dim)] += g * g / (2 * S);
      }
    }
    const auto& rows = found.rows.at("model.layers.0.mlp.down_proj");
    ASSERT_EQ(rows.size(), expected.size());
    for (std::size_t r = 0; r < rows.size(); ++r)
      EXPECT_NEAR(static_cast<double>(rows[r]), expected[r], 0.02 * expected[r] + 1e-6) << r;
  }
}

TEST(OutputMoments, EveryMatrixOfTheBlocksWhateverTheThreads) {
  const auto source = models::tiny_model();
  const auto windows = some_windows(source.config, 5, 16);
  const OutputMoments one = output_moments(source, windows, 5, 3, 1, {});
  const OutputMoments many = output_moments(source, windows, 5, 3, 3, {});
  EXPECT_EQ(one.rows, many.rows);
  EXPECT_EQ(one.labels, many.labels);
  for (const auto& tensor : models::tensor_table(source.config)) {
    if (tensor.role != models::TensorRole::kLinear) continue;
    const auto& rows = one.rows.at(tensor.name);
    EXPECT_EQ(std::ssize(rows), tensor.shape[0]);
    for (const float value : rows) EXPECT_GT(value, 0);
  }
  // Another seed draws other labels; fewer windows are the first ones.
  EXPECT_NE(output_moments(source, windows, 5, 4, 2, {}).labels, one.labels);
  const auto first = output_moments(source, windows, 2, 3, 2, {}).labels;
  EXPECT_TRUE(std::equal(first.begin(), first.end(), one.labels.begin()));
}

TEST(OutputMoments, CanBeStopped) {
  const auto source = models::tiny_model();
  const auto windows = some_windows(source.config, 2, 8);
  int calls = 0;
  EXPECT_THROW(
      output_moments(source, windows, 2, 3, 1, [&](const Progress&) { return ++calls < 3; }),
      Interrupted);
  EXPECT_THROW(output_moments(source, {}, 2, 3, 1, {}), Error);
}

}  // namespace
}  // namespace crumb::quant
