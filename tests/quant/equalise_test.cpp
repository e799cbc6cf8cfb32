// Equalising leaves the block what it was and its statistics true; each method does what it is for.
#include "quant/equalise.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "quant/linalg.h"
#include "tests/engine/tiny.h"
#include "tests/quant/weights.h"

namespace crumb::quant {
namespace {

using train::LinearInput;

constexpr int64_t kTokens = 96;
constexpr Equalise kMethods[] = {Equalise::kSinkhorn, Equalise::kAwq, Equalise::kAsinq,
                                 Equalise::kDiagonal};

models::TinyOptions qwen() {
  models::TinyOptions options;
  options.architecture = "qwen2";
  options.qkv_bias = true;
  options.tied_head = false;
  return options;
}

// A tiny block with loud input channels and spread weights, its input and what it computes.
struct Case {
  explicit Case(const models::TinyOptions& options = {})
      : config(models::tiny_model(options).config),
        context(config, kTokens),
        weights(train::read_block(models::tiny_model(options), 0)),
        x(random_weights(kTokens * config.dim, 7, 1.0f)) {
    for (std::size_t k = 0; k < weights.attn_norm.size(); k += 9) weights.attn_norm[k] *= 12;
    for (std::size_t k = 4; k < weights.mlp_norm.size(); k += 11) weights.mlp_norm[k] *= 9;
    for (std::size_t i = 0; i < weights.up.size(); ++i)
      if (i / static_cast<std::size_t>(config.dim) % 13 == 3) weights.up[i] *= 10;
    for (std::size_t i = 0; i < weights.o.size(); ++i)
      if (i % 7 == 2) weights.o[i] *= 4;
  }

  std::vector<float> forward(const train::BlockWeights& w) const {
    train::BlockActivations a(config, kTokens);
    std::vector<float> y(x.size());
    train::block_forward(context, w, x, a, y);
    return y;
  }

  // By its definition, from the block's own inputs.
  BlockStatistics statistics(const train::BlockWeights& w) const {
    train::BlockActivations a(config, kTokens);
    std::vector<float> y(x.size());
    train::block_forward(context, w, x, a, y);
    BlockStatistics out;
    for (const LinearInput input : train::kLinearInputs) {
      auto& to = out.inputs[static_cast<std::size_t>(input)];
      const auto values = train::linear_input(a, input);
      to.K = train::linear_input_width(config, input);
      to.tokens = kTokens;
      const auto K = static_cast<std::size_t>(to.K);
      to.H.resize(K * K);
      to.mean_abs.resize(K);
      to.max_abs.resize(K);
      for (std::size_t t = 0; t < kTokens; ++t)
        for (std::size_t i = 0; i < K; ++i) {
          const float xi = values[t * K + i];
          to.mean_abs[i] += std::abs(xi) / kTokens;
          to.max_abs[i] = std::max(to.max_abs[i], std::abs(xi));
          for (std::size_t j = 0; j < K; ++j)
            to.H[i * K + j] += static_cast<double>(xi) * values[t * K + j] / kTokens;
        }
    }
    return out;
  }

  models::ModelConfig config;
  train::BlockContext context;
  train::BlockWeights weights;
  std::vector<float> x;
};

EqualiseOptions options_of(Equalise method) {
  EqualiseOptions options;
  options.method = method;
  options.grid = {3, 32, kernels::Grid::kAsym, ScaleRule::kAbsMax};
  options.sinkhorn.tile = 32;
  options.rows = 0;
  return options;
}

double largest(std::span<const float> x) {
  double most = 0;
  for (const float value : x) most = std::max(most, std::abs(static_cast<double>(value)));
  return most;
}

// tr(E H E^T) of rounding all matrices of an input to nearest.
double error_of(const train::BlockWeights& weights, const BlockStatistics& statistics,
                LinearInput input, const NearestOptions& grid) {
  double sum = 0;
  const auto& s = statistics.of(input);
  for (const auto member : readers(input)) {
    const auto& w = weights.*member;
    const int64_t N = std::ssize(w) / s.K;
    sum += proxy_loss(w, dequantize(round_nearest(w, N, s.K, {}, grid)), N, s.H, s.K);
  }
  return sum;
}

TEST(Equalise, BlockComputesWhatItDidAndStatisticsStayTrue) {
  for (const auto& model : {models::TinyOptions{}, qwen()})
    for (const Equalise method : kMethods) {
      SCOPED_TRACE(std::string(name_of(kEqualiseMethods, method)) + " " + model.architecture);
      const Case c(model);
      auto weights = c.weights;
      auto statistics = c.statistics(weights);
      const auto scales = equalise(c.config, options_of(method), &weights, &statistics);
      const auto expected = c.forward(c.weights);
      const auto found = c.forward(weights);
      const double size = largest(expected);
      double moved = 0;
      for (std::size_t i = 0; i < found.size(); ++i)
        ASSERT_NEAR(found[i], expected[i], 1e-5 * size) << i;
      const auto fresh = c.statistics(weights);
      for (const LinearInput input : train::kLinearInputs) {
        const auto& t = scales.t[static_cast<std::size_t>(input)];
        ASSERT_EQ(std::ssize(t), train::linear_input_width(c.config, input));
        for (const float value : t) {
          ASSERT_GT(value, 0);
          moved = std::max(moved, std::abs(static_cast<double>(value) - 1));
        }
        const auto& a = statistics.of(input);
        const auto& b = fresh.of(input);
        for (std::size_t i = 0; i < a.mean_abs.size(); ++i) {
          EXPECT_NEAR(a.mean_abs[i], b.mean_abs[i], 1e-4 * b.mean_abs[i] + 1e-6);
          EXPECT_NEAR(a.max_abs[i], b.max_abs[i], 1e-4 * b.max_abs[i] + 1e-6);
          for (std::size_t j = 0; j < a.mean_abs.size(); ++j) {
            const auto K = a.mean_abs.size();
            const double scale = std::sqrt(b.H[i * K + i] * b.H[j * K + j]);
            ASSERT_NEAR(a.H[i * K + j], b.H[i * K + j], 1e-4 * scale + 1e-9);
          }
        }
      }
      EXPECT_GT(moved, 0.1);  // something was folded
    }
}

TEST(Equalise, EveryWayOfSharingKeepsTheBlock) {
  const Case c;
  const auto expected = c.forward(c.weights);
  std::vector<std::vector<float>> gains;
  for (const auto& [name, shared] : kSharedScales) {
    auto options = options_of(Equalise::kSinkhorn);
    options.shared = shared;
    auto weights = c.weights;
    equalise(c.config, options, &weights, nullptr);
    const auto found = c.forward(weights);
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_NEAR(found[i], expected[i], 1e-5 * largest(expected)) << name;
    gains.push_back(weights.attn_norm);
  }
  EXPECT_NE(gains[0], gains[1]);
  EXPECT_NE(gains[1], gains[2]);
  EXPECT_NE(gains[0], gains[2]);
}

TEST(Equalise, SinkhornNeedsNoStatistics) {
  const Case c;
  auto with = c.weights;
  auto without = c.weights;
  auto statistics = c.statistics(c.weights);
  equalise(c.config, options_of(Equalise::kSinkhorn), &with, &statistics);
  equalise(c.config, options_of(Equalise::kSinkhorn), &without, nullptr);
  for (const auto& tensor : train::block_tensors())
    EXPECT_EQ(with.*tensor.member, without.*tensor.member) << tensor.suffix;
}

TEST(Equalise, SinkhornEvensTheColumnsOfMatricesThatShareAnInput) {
  const Case c;
  const auto imbalance = [&](const train::BlockWeights& w) {
    auto stacked = w.gate;
    stacked.insert(stacked.end(), w.up.begin(), w.up.end());
    return sinkhorn(stacked, std::ssize(stacked) / c.config.dim, c.config.dim, {0, 0})
        .imbalance_before;
  };
  auto options = options_of(Equalise::kSinkhorn);
  options.sinkhorn.tile = 0;
  auto weights = c.weights;
  for (std::size_t i = 0; i < weights.gate.size(); i += 64) weights.gate[i] *= 10;
  for (std::size_t i = 0; i < weights.up.size(); i += 64) weights.up[i] *= 10;
  const double before = imbalance(weights);
  equalise(c.config, options, &weights, nullptr);
  EXPECT_LT(imbalance(weights), 0.7 * before);
}

TEST(Equalise, AwqLowersTheOutputErrorOfLoudInputs) {
  const Case c;
  const auto options = options_of(Equalise::kAwq);
  auto weights = c.weights;
  auto statistics = c.statistics(weights);
  const auto before = statistics;
  const auto scales = equalise(c.config, options, &weights, &statistics);
  // o_in and down_in come first, so theirs are compared on the block as it was.
  for (const LinearInput input : {LinearInput::kOutput, LinearInput::kDown})
    EXPECT_LE(error_of(weights, statistics, input, options.grid),
              error_of(c.weights, before, input, options.grid) * (1 + 1e-6));
  for (const LinearInput input : {LinearInput::kAttention, LinearInput::kMlp}) {
    EXPECT_GT(scales.alpha[static_cast<std::size_t>(input)], 0) << linear_input_name(input);
    EXPECT_LT(error_of(weights, statistics, input, options.grid),
              0.9 * error_of(c.weights, before, input, options.grid));
  }
}

TEST(Equalise, SearchOnSomeRowsIsNearlyAsGoodAsOnAll) {
  const Case c;
  const auto error = [&](int64_t rows) {
    auto options = options_of(Equalise::kAwq);
    options.rows = rows;
    auto weights = c.weights;
    auto statistics = c.statistics(weights);
    equalise(c.config, options, &weights, &statistics);
    return error_of(weights, statistics, LinearInput::kMlp, options.grid);
  };
  EXPECT_EQ(error(96), error(0));  // there are no more
  EXPECT_LT(error(48), 1.2 * error(0));
}

TEST(Equalise, AbsoluteNormMinimisesTheSumOfRowsRoots) {
  const Case c;
  const auto roots = [&](OutputNorm norm) {
    auto options = options_of(Equalise::kAwq);
    options.norm = norm;
    auto weights = c.weights;
    auto statistics = c.statistics(weights);
    equalise(c.config, options, &weights, &statistics);
    const auto& s = statistics.of(LinearInput::kDown);
    const auto rounded =
        dequantize(round_nearest(weights.down, c.config.dim, s.K, {}, options.grid));
    double sum = 0;
    for (const double loss : row_losses(weights.down, rounded, c.config.dim, s.H, s.K))
      sum += std::sqrt(loss);
    return sum;
  };
  EXPECT_LE(roots(OutputNorm::kAbsolute), roots(OutputNorm::kSquared) * (1 + 1e-6));
}

// For o_in and down_in, whose matrices nothing else is folded into, the search has all that A-SINQ
// and AWQ alone could take.
TEST(Equalise, TakingSinkhornBackIsAtLeastAsGoodAsEither) {
  const Case c;
  const auto errors = [&](Equalise method, int back) {
    auto options = options_of(method);
    options.back = back;
    auto weights = c.weights;
    auto statistics = c.statistics(weights);
    equalise(c.config, options, &weights, &statistics);
    return std::array{error_of(weights, statistics, LinearInput::kOutput, options.grid),
                      error_of(weights, statistics, LinearInput::kDown, options.grid)};
  };
  const auto awq = errors(Equalise::kAwq, 0), asinq = errors(Equalise::kAsinq, 0);
  EXPECT_EQ(errors(Equalise::kAwq, 2), awq);
  const auto both = errors(Equalise::kAsinq, 2);
  for (std::size_t i = 0; i < both.size(); ++i)
    EXPECT_LE(both[i], std::min(awq[i], asinq[i]) * (1 + 1e-4)) << i;
}

TEST(Equalise, RelativeNormLetsNoMatrixSpeakForTheOthers) {
  Case c;
  for (float& v : c.weights.v) v *= 30;
  const auto parts = [&](OutputNorm norm) {
    auto options = options_of(Equalise::kAwq);
    options.norm = norm;
    auto weights = c.weights;
    auto statistics = c.statistics(weights);
    equalise(c.config, options, &weights, &statistics);
    const auto& s = statistics.of(LinearInput::kAttention);
    double sum = 0;
    for (const auto member : readers(LinearInput::kAttention)) {
      const auto& w = weights.*member;
      const int64_t N = std::ssize(w) / s.K;
      const auto rounded = dequantize(round_nearest(w, N, s.K, {}, options.grid));
      sum += proxy_loss(w, rounded, N, s.H, s.K) /
             proxy_loss(w, std::vector<float>(w.size()), N, s.H, s.K);
    }
    return sum;
  };
  EXPECT_LT(parts(OutputNorm::kRelative), parts(OutputNorm::kSquared) * (1 + 1e-6));
}

TEST(Equalise, DiagonalMakesColumnsOfWeightsAndInputsAlike) {
  const Case c;
  auto weights = c.weights;
  auto statistics = c.statistics(weights);
  equalise(c.config, options_of(Equalise::kDiagonal), &weights, &statistics);
  const auto& s = statistics.of(LinearInput::kDown);
  const auto K = static_cast<std::size_t>(s.K);
  // What QuIP's rescale minimises: tr(H) |W|^2, the bound of rounding with one scale.
  const auto bound = [&](const train::BlockWeights& w, const BlockStatistics& of) {
    double trace = 0;
    double norm = 0;
    for (std::size_t k = 0; k < K; ++k) trace += of.of(LinearInput::kDown).H[k * K + k];
    for (const float x : w.down) norm += static_cast<double>(x) * x;
    return trace * norm;
  };
  EXPECT_LT(bound(weights, statistics), bound(c.weights, c.statistics(c.weights)));
  std::vector<double> w2(K);
  for (std::size_t i = 0; i < weights.down.size(); ++i)
    w2[i % K] += static_cast<double>(weights.down[i]) * weights.down[i];
  // With t_k^4 = (W^T W)_kk / H_kk both become the same multiple of each other.
  const double ratio = w2[0] / s.H[0];
  for (std::size_t k = 0; k < K; ++k) EXPECT_NEAR(w2[k] / s.H[k * K + k], ratio, 1e-3 * ratio) << k;
}

TEST(Equalise, SameForEveryNumberOfThreads) {
  const Case c;
  for (const Equalise method : kMethods) {
    auto one = c.weights;
    auto three = c.weights;
    auto s1 = c.statistics(one);
    auto s3 = s1;
    equalise(c.config, options_of(method), &one, &s1, 1);
    equalise(c.config, options_of(method), &three, &s3, 3);
    for (const auto& tensor : train::block_tensors())
      EXPECT_EQ(one.*tensor.member, three.*tensor.member) << tensor.suffix;
    EXPECT_EQ(s1.inputs[3].H, s3.inputs[3].H);
  }
}

}  // namespace
}  // namespace crumb::quant
