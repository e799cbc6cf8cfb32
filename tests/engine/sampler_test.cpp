#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "engine/logit_blocks.h"
#include "engine/rng.h"
#include "models/errors.h"

namespace crumb {
namespace {

std::vector<float> random_logits(uint64_t seed, std::size_t n, double spread) {
  std::vector<float> logits(n);
  for (std::size_t i = 0; i < n; ++i)
    logits[i] = static_cast<float>(spread * (uniform(seed, i) - 0.5));
  return logits;
}

// The chain as its definition reads: sort everything, cut, temper, draw.
int32_t obvious(std::vector<float> logits, const std::vector<int32_t>& history,
                const SamplingOptions& o, uint64_t step) {
  const std::size_t begin =
      o.repeat_last_n >= 0 && history.size() > static_cast<std::size_t>(o.repeat_last_n)
          ? history.size() - static_cast<std::size_t>(o.repeat_last_n)
          : 0;
  for (const auto& b : o.bias) logits[static_cast<std::size_t>(b.id)] += b.bias;
  std::map<int32_t, int> counts;
  for (std::size_t i = begin; i < history.size(); ++i) ++counts[history[i]];
  for (const auto& [id, n] : counts) {
    float& x = logits[static_cast<std::size_t>(id)];
    x = x > 0 ? x / o.repeat_penalty : x * o.repeat_penalty;
    x -= o.presence_penalty + o.frequency_penalty * static_cast<float>(n);
  }
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return logits[a] > logits[b]; });
  if (o.temperature == 0) return static_cast<int32_t>(order[0]);
  if (o.top_k > 0 && order.size() > static_cast<std::size_t>(o.top_k))
    order.resize(static_cast<std::size_t>(o.top_k));
  const double best = logits[order[0]];
  double total = 0;
  for (const auto i : order) total += std::exp(logits[i] - best);
  std::vector<std::size_t> kept;
  double sum = 0;
  for (const auto i : order) {
    if (!kept.empty() && o.top_p < 1 && sum >= o.top_p * total) break;
    sum += std::exp(logits[i] - best);
    kept.push_back(i);
  }
  std::erase_if(kept, [&](auto i) { return i != kept[0] && std::exp(logits[i] - best) < o.min_p; });
  double weight = 0;
  for (const auto i : kept) weight += std::exp((logits[i] - best) / o.temperature);
  double left = uniform(o.seed, step) * weight;
  for (const auto i : kept) {
    left -= std::exp((logits[i] - best) / o.temperature);
    if (left < 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(kept.back());
}

TEST(Rng, PhiloxKnownAnswer) {
  // Random123's known-answer vector for Philox4x32-10 with counter 0 and key 0.
  EXPECT_EQ(philox(0, 0),
            (std::array<uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
}

TEST(Rng, UniformIsInRangeAndEven) {
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = uniform(42, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.015);
}

TEST(Sampler, AgreesWithTheObviousChain) {
  std::vector<SamplingOptions> table;
  for (const float temperature : {0.0f, 0.3f, 0.8f, 2.0f})
    for (const int64_t top_k : {0, 1, 5, 40, 5000})
      for (const float top_p : {1.0f, 0.95f, 0.5f, 0.01f})
        for (const float min_p : {0.0f, 0.05f, 1.0f}) {
          SamplingOptions o;
          o.temperature = temperature;
          o.top_k = top_k;
          o.top_p = top_p;
          o.min_p = min_p;
          o.seed = table.size();
          o.repeat_penalty = table.size() % 3 == 0 ? 1.3f : 1.0f;
          o.frequency_penalty = table.size() % 5 == 0 ? 0.2f : 0.0f;
          if (table.size() % 7 == 0) o.bias = {{3, 5.0f}, {199, 4.0f}, {3, 1.5f}, {8, -100.0f}};
          o.repeat_last_n = table.size() % 2 == 0 ? 4 : -1;
          table.push_back(o);
        }
  const std::vector<int32_t> history{1, 2, 3, 2, 2, 9, 77, 2};
  Sampler restarted({}, 200);
  for (const auto& options : table) {
    Sampler sampler(options, 200), told(options, 200);
    restarted.restart(options);
    for (uint64_t step = 0; step < 4; ++step) {
      const auto logits = random_logits(options.seed * 100 + step, 200, 12);
      ASSERT_EQ(sampler.sample(logits, history), obvious(logits, history, options, step))
          << "temperature " << options.temperature << " top_k " << options.top_k << " top_p "
          << options.top_p << " min_p " << options.min_p << " step " << step;
      std::vector<float> block_max(7);
      find_block_max(logits, block_max.data());
      ASSERT_EQ(told.sample(logits, history, block_max), obvious(logits, history, options, step));
      ASSERT_EQ(restarted.sample(logits, history), obvious(logits, history, options, step));
    }
  }
}

TEST(LogitBlocks, LargestOfEachAndNothingInfinite) {
  for (const std::size_t n : {1, 31, 32, 33, 100, 200}) {
    auto logits = random_logits(n, n, 12);
    std::vector<float> max(static_cast<std::size_t>(logit_blocks(static_cast<int64_t>(n))));
    ASSERT_TRUE(find_block_max(logits, max.data()));
    for (std::size_t b = 0; b < max.size(); ++b) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(b * kLogitBlock);
      const auto left = std::min<std::ptrdiff_t>(kLogitBlock, logits.end() - begin);
      EXPECT_EQ(max[b], *std::max_element(begin, begin + left)) << n << " block " << b;
    }
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      logits[n - 1] = bad;
      EXPECT_FALSE(find_block_max(logits, max.data())) << n;
    }
  }
}

TEST(Sampler, TiesGoToTheLowestId) {
  SamplingOptions o;
  o.temperature = 0;
  EXPECT_EQ(Sampler(o, 4).sample(std::vector<float>{1, 3, 3, 2}, {}), 1);
  o.temperature = 1;
  o.top_k = 1;
  EXPECT_EQ(Sampler(o, 4).sample(std::vector<float>{1, 3, 3, 3}, {}), 1);
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  SamplingOptions o;
  o.temperature = 1;
  o.top_k = 0;
  o.top_p = 1;
  o.min_p = 0;
  o.seed = 7;
  Sampler sampler(o, 3);
  const std::vector<float> logits{0, std::log(2.0f), std::log(5.0f)};
  std::array<int, 3> seen{};
  for (int i = 0; i < 20000; ++i) ++seen[static_cast<std::size_t>(sampler.sample(logits, {}))];
  EXPECT_NEAR(seen[0] / 20000.0, 0.125, 0.01);
  EXPECT_NEAR(seen[1] / 20000.0, 0.25, 0.01);
  EXPECT_NEAR(seen[2] / 20000.0, 0.625, 0.01);
}

TEST(Sampler, RefusesNonsense) {
  const auto bad = [](auto change) {
    SamplingOptions o;
    change(o);
    EXPECT_THROW(Sampler(o, 10), Error);
  };
  bad([](auto& o) { o.temperature = -1; });
  bad([](auto& o) { o.temperature = NAN; });
  bad([](auto& o) { o.top_p = 0; });
  bad([](auto& o) { o.min_p = 2; });
  bad([](auto& o) { o.repeat_penalty = 0; });
  bad([](auto& o) { o.top_k = -3; });
  bad([](auto& o) { o.bias = {{10, 1}}; });
  bad([](auto& o) { o.bias = {{-1, 1}}; });
  bad([](auto& o) { o.bias = {{1, NAN}}; });
}

}  // namespace
}  // namespace crumb
