// Q-VLM on a language model: the chain of sites, entropy, partitions, clips site by site and
// jointly.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/errors.h"
#include "models/tiny_model.h"
#include "quant/qvlm/entropy.h"
#include "quant/qvlm/search.h"
#include "quant/rounded.h"
#include "quant/rtn.h"

namespace crumb::quant::qvlm {
namespace {

models::SourceModel model(bool bias = false) {
  models::TinyOptions options;
  options.layers = 2;
  options.ffn = 128;
  options.qkv_bias = bias;
  if (bias) options.architecture = "qwen2";
  return models::tiny_model(options);
}

CalibrationWindows windows() {
  CalibrationWindows text{16, {}};
  for (int32_t i = 0; i < 32; ++i) text.ids.push_back(3 + i * i * 7 % 256);
  return text;
}

RoundingForm form(int64_t hadamard = 0) { return {4, 4, 32, {hadamard, 1}}; }

std::vector<Clips> all(int64_t sites, Clips clips = {}) {
  return std::vector<Clips>(static_cast<std::size_t>(sites), clips);
}

TEST(Qvlm, EntropyIsOneOfWhatIsAlikeAndZeroOfWhatOneTokenUses) {
  const std::vector<int8_t> alike = {3, 3, -3, 3};
  EXPECT_NEAR(activation_entropy(alike, 1), 1, 1e-12);
  const std::vector<int8_t> once = {0, 0, -7, 0};
  EXPECT_NEAR(activation_entropy(once, 1), 0, 1e-12);
  // Channels: alike, once, dead (left out): the mean of the first two.
  const std::vector<int8_t> three = {2, 0, 0, 2, 5, 0, -2, 0, 0, 2, 0, 0};
  EXPECT_NEAR(activation_entropy(three, 3), 0.5, 1e-12);
  const std::vector<int8_t> shares = {1, 3};
  EXPECT_NEAR(activation_entropy(shares, 1),
              -(0.25 * std::log(0.25) + 0.75 * std::log(0.75)) / std::log(2), 1e-12);
  EXPECT_EQ(activation_entropy(std::vector<int8_t>(8, 0), 2), 0);
  EXPECT_EQ(activation_entropy(std::vector<int8_t>{1, 2}, 2), 0) << "one token";
}

TEST(Qvlm, InputsAreRoundedByToken) {
  const std::vector<float> x = {7, -3.4f, 0.4f, 2, /**/ 0, 0, 0, 0, /**/ -1, 0.5f, 0.1f, 0.9f};
  const InputCodes whole = input_codes(x, 4, 4, 1);
  EXPECT_EQ(whole.codes, (std::vector<int8_t>{7, -3, 0, 2, 0, 0, 0, 0, -7, 3, 1, 6}));
  EXPECT_EQ(whole.scales[0], 1);
  EXPECT_EQ(whole.scales[1], 0);
  const InputCodes half = input_codes(x, 4, 4, 0.5);  // beyond half the largest is cut
  EXPECT_EQ(half.codes, (std::vector<int8_t>{7, -7, 1, 4, 0, 0, 0, 0, -7, 7, 1, 7}));
  EXPECT_EQ(half.scales[0], 0.5f);
}

// The chain in full precision is the trainer's forward pass, rotated or not.
TEST(Qvlm, TheChainIsTheForwardPass) {
  for (const bool bias : {false, true}) {
    const auto source = model(bias);
    const auto text = windows();
    std::vector<float> stream = embedded(source, text.ids);
    const train::BlockContext context(source.config, text.S);
    train::BlockActivations activations(source.config, text.S);
    for (int64_t layer = 0; layer < source.config.layers; ++layer)
      for (int64_t w = 0; w < text.count(); ++w) {
        const auto n = static_cast<std::size_t>(text.S * source.config.dim);
        const auto x = std::span(stream).subspan(static_cast<std::size_t>(w) * n, n);
        train::block_forward(context, train::read_block(source, layer), x, activations, x);
      }
    for (const int64_t hadamard : {0, 32}) {
      const SiteChain chain(source, text, form(hadamard));
      ChainState state = chain.start();
      for (int64_t site = 0; site < chain.sites(); ++site)
        chain.run(site, chain.weights(site), nullptr, &state);
      double worst = 0;
      for (std::size_t i = 0; i < stream.size(); ++i)
        worst = std::max(worst, static_cast<double>(std::abs(state.stream[i] - stream[i])));
      EXPECT_LT(worst, 2e-5) << hadamard;
      EXPECT_EQ(std::ssize(chain.logits(state, 3, 2)), 2 * source.config.vocab);
    }
  }
}

TEST(Qvlm, WeightsUnclippedAreRoundToNearest) {
  const auto source = model();
  for (const int64_t hadamard : {0, 32}) {
    const SiteChain chain(source, windows(), form(hadamard));
    std::vector<float> w(128 * 64);
    source.read("model.layers.1.mlp.up_proj", w);
    const auto data =
        rtn(w, 128, 64, {4, 32, kernels::Grid::kSeq, ScaleSearch::kAbsMax, {hadamard, 1}}, "up");
    const auto rounded = chain.rounded(chain.weights(6), 6, 1);
    EXPECT_EQ(rounded.matrices[1], dequantize(unpack(data)));
    EXPECT_NE(chain.rounded(chain.weights(6), 6, 0.9).matrices[1], rounded.matrices[1]);
  }
}

TEST(Qvlm, PartitionsAreTheCheapest) {
  const std::vector<double> entropy = {0.9, 0.8, 0.3, 0.7, 0.75, 0.2, 0.9, 0.6};
  EXPECT_EQ(fixed_blocks(8, 3), (Partition{3, 3, 2}));
  EXPECT_EQ(joint_evaluations({3, 1, 2, 2}, 7), 343 + 2 * 49);
  EXPECT_EQ(blocks_by_mean(entropy, 3), (Partition{2, 3, 2, 1}));
  for (const double price : {0.0, 1e-4, 1e-3, 3e-3, 1e-2, 1.0}) {
    const auto cost = [&](const Partition& blocks) {
      double sum = price * static_cast<double>(joint_evaluations(blocks, 7));
      std::size_t site = 0;
      for (std::size_t b = 0; b + 1 < blocks.size(); ++b) {
        site += static_cast<std::size_t>(blocks[b]);
        sum += entropy[site];
      }
      return sum;
    };
    double least = 1e9;  // over all ways: bit i of `cuts` is a cut behind site i
    for (unsigned cuts = 0; cuts < 128; ++cuts) {
      Partition blocks = {1};
      for (unsigned i = 0; i < 7; ++i) {
        if ((cuts >> i & 1u) != 0)
          blocks.push_back(1);
        else
          ++blocks.back();
      }
      if (*std::ranges::max_element(blocks) <= 3) least = std::min(least, cost(blocks));
    }
    EXPECT_NEAR(cost(cheapest_blocks(entropy, 3, 7, price)), least, 1e-12) << price;
  }
  for (const int64_t budget : {0, 100, 343, 600, 2000}) {
    const Partition blocks = blocks_within(entropy, 3, 7, budget);
    EXPECT_LE(joint_evaluations(blocks, 7), budget);
    EXPECT_EQ(std::accumulate(blocks.begin(), blocks.end(), int64_t{0}), 8);
  }
  EXPECT_EQ(blocks_within(entropy, 3, 7, 0), (Partition(8, 1)));
}

TEST(Qvlm, TheJointSearchFindsTheBestCombination) {
  const auto source = model();
  const SiteChain chain(source, windows(), form());
  const ClipCandidates candidates{{1, 0.8, 0.6}, {1, 0.9}};
  const ClipSearch search(chain, candidates, 1, {});
  const auto sites = search.search_each();
  std::vector<Clips> from;
  for (int64_t site = 0; site < chain.sites(); ++site) {
    const auto& found = sites[static_cast<std::size_t>(site)];
    from.push_back(found.clips);
    EXPECT_GT(found.entropy, 0);
    EXPECT_LE(found.entropy, 1);
    for (const double input : candidates.input)
      for (const double weight : candidates.weight) {
        const Clips one{input, weight};
        EXPECT_GE(search.error(site, {&one, 1}), found.error) << chain.name(site);
      }
  }
  for (const int64_t first : {0, 2, 5}) {
    const auto block = search.search_block(first, 3, from);
    EXPECT_EQ(block.evaluations, 27);
    EXPECT_LE(block.error, block.separate_error);
    EXPECT_NEAR(search.error(first, block.clips), block.error, 1e-15);
    auto clips = std::vector<Clips>(from.begin() + first, from.begin() + first + 3);
    for (const double a : candidates.input)
      for (const double b : candidates.input)
        for (const double c : candidates.input) {
          clips[0].input = a;
          clips[1].input = b;
          clips[2].input = c;
          EXPECT_GE(search.error(first, clips), block.error);
        }
  }
  const ClipSearch threads(chain, candidates, 3, {});
  const Partition blocks = {1, 2, 3, 2};
  const auto one = search.search_blocks(blocks, from), three = threads.search_blocks(blocks, from);
  ASSERT_EQ(one.size(), 3u);
  EXPECT_EQ(with_blocks(from, one), with_blocks(from, three));
  EXPECT_EQ(with_blocks(from, one).front(), from.front()) << "a block of one";
}

TEST(Qvlm, DivergenceOfTheWholeChain) {
  const auto source = model();
  RoundingForm fine = form(32);
  fine.weight_bits = fine.input_bits = 8;
  const SiteChain eight(source, windows(), fine), four(source, windows(), form(32));
  const std::vector<std::vector<Clips>> settings = {all(8), all(8, {0.3, 1})};
  const auto kl8 = divergence(eight, settings, 1, {}), kl4 = divergence(four, settings, 2, {});
  EXPECT_GT(kl8[0].kl, 0);
  EXPECT_LT(kl8[0].kl, 0.02 * kl4[0].kl);
  EXPECT_LT(kl4[0].kl, kl4[1].kl) << "inputs cut at a third";
  EXPECT_GT(kl8[0].top1, 0.9);
  EXPECT_EQ(divergence(four, settings, 1, {})[1].kl, kl4[1].kl);
}

TEST(Qvlm, TheWholeSearchHasItsControls) {
  const auto source = model();
  QvlmOptions options;
  options.form = form(32);
  options.candidates = {{1, 0.8, 0.6}, {1, 0.9}};
  options.fixed = options.pairs = true;
  options.threads = 1;
  const QvlmReport one = search_clips(source, windows(), windows(), options, {});
  ASSERT_EQ(one.settings.size(), 4u);
  EXPECT_EQ(std::accumulate(one.partition.begin(), one.partition.end(), int64_t{0}), 8);
  EXPECT_LE(one.settings[2].evaluations, one.settings[3].evaluations / 4 + 1);
  EXPECT_EQ(one.settings[3].evaluations, 2 * 27 + 9);
  EXPECT_LE(one.settings[3].block_error, one.settings[1].block_error) << "its own objective";
  EXPECT_LE(one.settings[1].block_error, 1.2 * one.settings[0].block_error);
  ASSERT_EQ(one.pairs.size(), 7u);
  for (const Pair& pair : one.pairs) EXPECT_GE(pair.dependency, 0);
  options.threads = 3;
  const QvlmReport three = search_clips(source, windows(), windows(), options, {});
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(one.settings[i].clips, three.settings[i].clips);
    EXPECT_EQ(one.settings[i].checked.kl, three.settings[i].checked.kl);
  }
  EXPECT_EQ(one.entropy_r2, three.entropy_r2);
  options.by_mean = true;
  EXPECT_NO_THROW(static_cast<void>(search_clips(source, windows(), windows(), options, {})));
}

TEST(Qvlm, SquaredCorrelation) {
  const std::vector<double> x = {1, 2, 3, 4}, y = {2, 4, 6, 8}, z = {1, -1, -1, 1}, flat(4, 2.0);
  EXPECT_NEAR(r_squared(x, y), 1, 1e-12);
  EXPECT_NEAR(r_squared(x, z), 0, 1e-12);
  EXPECT_EQ(r_squared(x, flat), 0);
}

TEST(Qvlm, RefusesAndStops) {
  const auto source = model();
  EXPECT_THROW(SiteChain(source, {16, {}}, form()), Error);
  RoundingForm bad = form();
  bad.input_bits = 9;
  EXPECT_THROW(SiteChain(source, windows(), bad), Error);
  bad = form(48);
  EXPECT_THROW(SiteChain(source, windows(), bad), Error);
  const SiteChain chain(source, windows(), form());
  const ProgressFn stop = [](const Progress& p) { return p.done < 2; };
  EXPECT_THROW(ClipSearch(chain, {}, 1, stop), Interrupted);
  const std::vector<std::vector<Clips>> settings = {all(8)};
  EXPECT_THROW(divergence(chain, settings, 1, stop), Interrupted);
}

}  // namespace
}  // namespace crumb::quant::qvlm
