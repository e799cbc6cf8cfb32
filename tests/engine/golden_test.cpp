// The f32 engine against logits computed in float64 by an independent program.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>

#include "engine/engine.h"
#include "models/json.h"
#include "tests/engine/model_files.h"

namespace crumb {
namespace {

using nlohmann::json;

std::unique_ptr<Session> session_of(const Engine& engine) {
  SessionOptions options;
  options.kv = kernels::KvType::kF32;
  options.context = 1024;
  return engine.make_session(options);
}

class Golden : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (const auto path = test::smollm2()) engine_ = Engine::load(*path);
  }
  static void TearDownTestSuite() { engine_.reset(); }
  void SetUp() override {
    if (!engine_) GTEST_SKIP() << "models/checkpoints has no SmolLM2 (run models/fetch.sh)";
  }
  static std::unique_ptr<Session> session() { return session_of(*engine_); }
  static inline std::shared_ptr<const Engine> engine_;
};

double log_sum_exp(std::span<const float> logits) {
  const double best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - best);
  return best + std::log(sum);
}

// Of the 20 best tokens of every position of golden/NAME.
void compare_top20(const Engine& engine, const std::string& name) {
  const auto path = test::data_file("golden/" + name);
  if (!path) GTEST_SKIP() << "no evaluation data (CRUMB_DATA)";
  std::ifstream file(*path);
  double worst = 0;
  int64_t positions = 0, same_best = 0;
  for (std::string line; std::getline(file, line);) {
    const json record = json::parse(line);
    const auto ids = record.at("ids").get<std::vector<int32_t>>();
    const auto s = session_of(engine);
    s->forward_all(ids, [&](int64_t t, std::span<const float> logits) {
      const auto i = static_cast<std::size_t>(t);
      const double lse = log_sum_exp(logits), golden_lse = record["lse"][i];
      const auto& top_ids = record["top_ids"][i];
      for (std::size_t k = 0; k < top_ids.size(); ++k) {
        const double golden = record["top_logits"][i][k].get<double>() - golden_lse;
        worst = std::max(worst, std::abs(logits[top_ids[k].get<std::size_t>()] - lse - golden));
      }
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      same_best += best == top_ids[0].get<int64_t>() ? 1 : 0;
      ++positions;
    });
  }
  ASSERT_GT(positions, 100);
  testing::Test::RecordProperty("worst_dlogp", std::to_string(worst));
  std::printf("positions %ld, same best %ld, worst |dlogP| %.2e\n", static_cast<long>(positions),
              static_cast<long>(same_best), worst);
  EXPECT_LE(worst, 1e-3);
  EXPECT_GE(static_cast<double>(same_best), 0.995 * static_cast<double>(positions));
}

TEST_F(Golden, LogProbabilitiesOfTheTop20) { compare_top20(*engine_, "logits_smollm2.jsonl"); }

TEST(GoldenQwen2, LogProbabilitiesOfTheTop20) {
  const auto path =
      test::existing(test::source_dir() + "/models/checkpoints/qwen2.5-coder-0.5b-instruct.gguf");
  if (!path) GTEST_SKIP() << "models/checkpoints has no qwen2.5-coder-0.5b-instruct.gguf";
  compare_top20(*Engine::load(*path), "logits_qwen2.jsonl");
}

TEST_F(Golden, MeanNllOfTheWindows) {
  const auto windows_path = test::data_file("golden/windows_smollm2.json");
  const auto text_path = test::data_file("wikitext2/test_half_a.raw");
  if (!windows_path || !text_path) GTEST_SKIP() << "no evaluation data (CRUMB_DATA)";
  std::ifstream text_file(*text_path);
  const std::string text((std::istreambuf_iterator<char>(text_file)), {});
  const json golden = json::parse(std::ifstream(*windows_path));
  const auto ids = engine_->tokenizer().encode(text, false);
  EXPECT_EQ(std::ssize(ids), golden["tokens_in_file"].get<int64_t>());
  const auto s = session();
  for (const auto& window : golden["windows"]) {
    const auto first = window["first_token"].get<std::size_t>(),
               n = window["tokens"].get<std::size_t>();
    s->truncate(0);
    double sum = 0;
    s->forward_all(std::span(ids).subspan(first, n), [&](int64_t t, std::span<const float> logits) {
      if (t + 1 == static_cast<int64_t>(n)) return;
      sum += log_sum_exp(logits) -
             logits[static_cast<std::size_t>(ids[first + static_cast<std::size_t>(t) + 1])];
    });
    EXPECT_NEAR(sum / static_cast<double>(n - 1), window["mean_nll"].get<double>(), 1e-4)
        << "window at token " << first;
  }
}

TEST_F(Golden, GreedyContinuation) {
  const auto path = test::data_file("golden/logits_smollm2.jsonl");
  if (!path) GTEST_SKIP() << "no evaluation data (CRUMB_DATA)";
  std::ifstream file(*path);
  int64_t compared = 0;
  for (std::string line; std::getline(file, line);) {
    const json record = json::parse(line);
    const auto s = session();
    auto logits = s->forward(record.at("ids").get<std::vector<int32_t>>());
    const auto& greedy = record["greedy_ids"];
    for (std::size_t i = 0; i < greedy.size(); ++i) {
      // Where the two best logits are this close, any precision may choose either.
      if (record["greedy_gap"][i].get<double>() < 0.05) break;
      const auto best =
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      ASSERT_EQ(best, greedy[i].get<int32_t>()) << record["id"] << " step " << i;
      ++compared;
      logits = s->forward({&best, 1});
    }
  }
  EXPECT_GT(compared, 50);
}

}  // namespace
}  // namespace crumb
