#include "bench/eval/perplexity.h"
#include "models/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "bench/eval/windows.h"
#include "models/errors.h"
#include "quant/quantize.h"
#include "tests/eval/tiny_engine.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::json;
using kernels::KvType;

std::vector<int32_t> target_ids(const Engine& engine, const std::string& text) {
  return engine.tokenizer().encode(text, false);
}

TEST(Perplexity, AgreesWithTheDefinitionTokenByToken) {
  const auto engine = tiny_engine();
  const std::string text = some_text(220);
  const auto ids = target_ids(*engine, text);
  for (const bool second_half : {true, false})
    for (const int64_t window : {2, 3, 16, 33}) {
      const int64_t count = std::ssize(ids) / window;
      ASSERT_GE(count, 2);
      long double sum = 0;
      int64_t tokens = 0;
      for (int64_t w = 0; w < count; ++w) {
        const auto part = std::span(ids).subspan(static_cast<std::size_t>(w * window),
                                                 static_cast<std::size_t>(window));
        const auto logits = logits_one_by_one(*engine, part, KvType::kI8);
        const int64_t first = second_half && window > 2 ? window / 2 : 0;
        for (int64_t p = first; p <= window - 2; ++p, ++tokens)
          sum -= log_probabilities(logits[static_cast<std::size_t>(p)])[static_cast<std::size_t>(
              part[static_cast<std::size_t>(p + 1)])];
      }
      WindowOptions options;
      options.window = window;
      options.second_half = second_half;
      const PerplexityResult result = perplexity(*engine, text, options, {});
      const auto nll = static_cast<double>(sum / static_cast<long double>(tokens));
      EXPECT_EQ(result.tokens, tokens);
      EXPECT_EQ(result.windows, count);
      EXPECT_EQ(std::ssize(result.window_nll), count);
      EXPECT_NEAR(result.nll, nll, 5e-7);
      EXPECT_NEAR(result.ppl, std::exp(nll), 1e-7 * std::exp(nll));
      EXPECT_GT(result.stderr_nll, 0);
      EXPECT_EQ(result.dropped_bytes, 0);
    }
}

TEST(Perplexity, SecondHalfOf512Scores255Tokens) {
  // Arithmetic only; the tiny model's context is shorter.
  Windows windows;
  windows.size = 512;
  windows.first = 256;
  EXPECT_EQ(windows.scored(), 255);
}

TEST(Perplexity, LimitTakesTheFirstWindows) {
  const auto engine = tiny_engine();
  WindowOptions options;
  options.window = 16;
  const auto all = perplexity(*engine, some_text(200), options, {});
  options.limit = 2;
  const auto two = perplexity(*engine, some_text(200), options, {});
  EXPECT_EQ(two.windows, 2);
  EXPECT_EQ(two.window_nll,
            std::vector<double>(all.window_nll.begin(), all.window_nll.begin() + 2));
  options.limit = 1000;
  EXPECT_EQ(perplexity(*engine, some_text(200), options, {}).windows, all.windows);
}

TEST(Perplexity, DoesNotDependOnTheNumberOfThreads) {
  WindowOptions options;
  options.window = 64;
  const std::string text = some_text(400);
  const auto one = tiny_engine(1, 1);
  const auto all = tiny_engine(1, 0);
  const auto a = perplexity(*one, text, options, {});
  const auto b = perplexity(*all, text, options, {});
  EXPECT_EQ(a.nll, b.nll);
  EXPECT_EQ(a.window_nll, b.window_nll);
  const auto c = kl_divergence(*tiny_engine(2, 1), *one, text, options, {});
  const auto d = kl_divergence(*tiny_engine(2, 0), *all, text, options, {});
  EXPECT_EQ(to_json(c), to_json(d));
}

TEST(Perplexity, BosTakesTheFirstPlaceOfEveryWindow) {
  auto source = models::tiny_model();
  source.vocab.bos = 1;
  source.vocab.add_bos = true;
  LoadOptions load;
  load.threads = 1;
  const auto engine = Engine::from_source(source, load);
  WindowOptions options;
  options.window = 16;
  const Windows windows = cut_windows(*engine, some_text(200), options);
  const auto ids = target_ids(*engine, some_text(200));
  for (int64_t w = 0; w < windows.count; ++w) {
    EXPECT_EQ(windows.window(w)[0], 1);
    for (std::size_t i = 1; i < 16; ++i)
      EXPECT_EQ(windows.window(w)[i], ids[static_cast<std::size_t>(w) * 16 + i]);
  }
}

TEST(Perplexity, SpecialTokensInTheTextAreText) {
  const auto engine = tiny_engine();
  WindowOptions options;
  options.window = 8;
  const Windows windows = cut_windows(*engine, "<|im_end|><|im_start|><|endoftext|>", options);
  for (const int32_t id : windows.ids) EXPECT_FALSE(engine->tokenizer().is_control(id));
}

TEST(Perplexity, RefusesWindowsItCannotCut) {
  const auto engine = tiny_engine();
  const std::string text = some_text(100);
  struct Bad {
    int64_t window, limit;
    std::string text, message;
  };
  const Bad all[] = {
      {1, 0, text, "expected 2..256 tokens"},
      {0, 0, text, "found 0"},
      {257, 0, text, "found 257"},
      {-5, 0, text, "found -5"},
      {16, -1, text, "limit of windows"},
      {256, 0, text, "text is too short (expected at least one window of 256 tokens"},
      {2, 0, "", "found 0"}};
  for (const Bad& bad : all) {
    WindowOptions options;
    options.window = bad.window;
    options.limit = bad.limit;
    try {
      perplexity(*engine, bad.text, options, {});
      FAIL() << "no error: " << bad.message;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kUsage);
      EXPECT_THAT(e.what(), testing::HasSubstr(bad.message));
    }
  }
}

TEST(Perplexity, ProgressCountsWindowsAndStops) {
  const auto engine = tiny_engine();
  WindowOptions options;
  options.window = 16;
  options.limit = 3;
  std::vector<int64_t> done;
  perplexity(*engine, some_text(200), options, [&](const Progress& p) {
    EXPECT_EQ(p.total, 3);
    done.push_back(p.done);
    return true;
  });
  EXPECT_EQ(done, (std::vector<int64_t>{0, 1, 2, 3}));
  const auto stop = [](const Progress& p) { return p.done < 1; };
  EXPECT_THROW(perplexity(*engine, some_text(200), options, stop), Interrupted);
  EXPECT_THROW(kl_divergence(*engine, *engine, some_text(200), options, stop), Interrupted);
}

TEST(KlDivergence, OfAModelWithItselfIsZero) {
  const auto engine = tiny_engine();
  WindowOptions options;
  options.window = 32;
  options.kv = KvType::kF32;
  const KlResult same = kl_divergence(*engine, *engine, some_text(300), options, {});
  EXPECT_EQ(same.mean_kld, 0);
  EXPECT_EQ(same.kld_max, 0);
  EXPECT_EQ(same.top1, 1);
  EXPECT_EQ(same.ppl, same.ppl_base);
  EXPECT_EQ(same.ppl_ratio, 1);
  EXPECT_EQ(same.tokens, same.windows * 15);
  // An int8 cache is close, not equal: the base must have kept its f32 one.
  options.kv = KvType::kI8;
  const KlResult cache = kl_divergence(*engine, *engine, some_text(300), options, {});
  EXPECT_GT(cache.mean_kld, 0);
  EXPECT_LT(cache.mean_kld, 0.01);
  EXPECT_EQ(cache.ppl_base, same.ppl_base);
}

TEST(KlDivergence, AgreesWithTheDefinition) {
  const auto base = tiny_engine(1);
  const auto model = tiny_engine(2);
  const std::string text = some_text(150);
  const auto ids = target_ids(*base, text);
  constexpr int64_t kWindow = 24;
  std::vector<double> kld;
  long double nll = 0;
  long double nll_base = 0;
  int64_t same = 0;
  for (int64_t w = 0; w < std::ssize(ids) / kWindow; ++w) {
    const auto part = std::span(ids).subspan(static_cast<std::size_t>(w * kWindow), kWindow);
    const auto p_logits = logits_one_by_one(*base, part, KvType::kF32);
    const auto q_logits = logits_one_by_one(*model, part, KvType::kF16);
    for (std::size_t i = kWindow / 2; i + 2 <= kWindow; ++i) {
      const auto p = log_probabilities(p_logits[i]);
      const auto q = log_probabilities(q_logits[i]);
      long double sum = 0;
      for (std::size_t v = 0; v < p.size(); ++v) sum += std::exp(p[v]) * (p[v] - q[v]);
      kld.push_back(static_cast<double>(sum));
      nll_base -= p[static_cast<std::size_t>(part[i + 1])];
      nll -= q[static_cast<std::size_t>(part[i + 1])];
      same += std::max_element(p.begin(), p.end()) - p.begin() ==
              std::max_element(q.begin(), q.end()) - q.begin();
    }
  }
  WindowOptions options;
  options.window = kWindow;
  options.kv = KvType::kF16;
  const KlResult result = kl_divergence(*base, *model, text, options, {});
  ASSERT_EQ(result.tokens, std::ssize(kld));
  const auto n = static_cast<double>(kld.size());
  double mean = 0;
  for (const double v : kld) mean += v / n;
  std::sort(kld.begin(), kld.end());
  EXPECT_NEAR(result.mean_kld, mean, 1e-9);
  EXPECT_NEAR(result.kld_max, kld.back(), 1e-9);
  const double middle = kld.size() % 2 == 1 ? kld[kld.size() / 2]
                                            : (kld[kld.size() / 2 - 1] + kld[kld.size() / 2]) / 2;
  EXPECT_NEAR(result.median_kld, middle, 1e-9);
  EXPECT_GT(result.kld_p99, middle);
  EXPECT_LE(result.kld_p99, result.kld_max);
  EXPECT_DOUBLE_EQ(result.top1, static_cast<double>(same) / n);
  EXPECT_NEAR(std::log(result.ppl), static_cast<double>(nll) / n, 1e-9);
  EXPECT_NEAR(std::log(result.ppl_base), static_cast<double>(nll_base) / n, 1e-9);
  EXPECT_NEAR(result.ppl_ratio, result.ppl / result.ppl_base, 1e-9);
}

TEST(KlDivergence, FallsWithTheBitsOfAQuantizedModel) {
  const auto source = models::tiny_model();
  const auto base = tiny_engine();
  const auto folder =
      std::filesystem::path(testing::TempDir()) / ("crumb_eval_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  WindowOptions options;
  options.window = 64;
  double last = 1e9;
  for (const int bits : {2, 3, 4, 8}) {
    quant::QuantizeOptions quantize;
    quantize.linear.bits = quantize.embedding.bits = bits;
    quantize.linear.group = quantize.embedding.group = 32;
    const std::string file = folder / "m.crumb";
    quant::quantize(source, quantize, file, {});
    LoadOptions load;
    load.threads = 1;
    const KlResult result =
        kl_divergence(*base, *Engine::load(file, load), some_text(600), options, {});
    EXPECT_LT(result.mean_kld, last) << bits;
    EXPECT_GT(result.mean_kld, 0) << bits;
    last = result.mean_kld;
  }
  EXPECT_LT(last, 0.01);
  std::filesystem::remove_all(folder);
}

TEST(KlDivergence, RefusesAnotherVocabulary) {
  models::TinyOptions tiny;
  tiny.vocab = 310;
  LoadOptions load;
  load.threads = 1;
  const auto other = Engine::from_source(models::tiny_model(tiny), load);
  WindowOptions options;
  options.window = 16;
  EXPECT_THROW(kl_divergence(*tiny_engine(), *other, some_text(100), options, {}), Error);
}

TEST(EvalJson, HasTheNamesOthersRelyOn) {
  const auto engine = tiny_engine();
  WindowOptions options;
  options.window = 16;
  const Json ppl = Json::parse(to_json(perplexity(*engine, some_text(100), options, {})));
  EXPECT_EQ(ppl["schema"], "crumb.eval.ppl/1");
  for (const char* field : {"ppl", "nll", "tokens"})
    EXPECT_TRUE(ppl.at(field).is_number()) << field;
  const Json kl =
      Json::parse(to_json(kl_divergence(*engine, *engine, some_text(100), options, {})));
  EXPECT_EQ(kl["schema"], "crumb.eval.kl/1");
  for (const char* field :
       {"mean_kld", "kld_p99", "top1", "ppl", "ppl_base", "ppl_ratio", "tokens"})
    EXPECT_TRUE(kl.at(field).is_number()) << field;
}

}  // namespace
}  // namespace crumb::eval
