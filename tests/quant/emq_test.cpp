// EMQ: terms, proxies, rank correlation, evolution; on a tiny model and on made-up plans.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "models/errors.h"
#include "models/tiny_model.h"
#include "quant/emq/evolve.h"
#include "quant/matrix_widths.h"
#include "tests/quant/weights.h"

namespace crumb::quant::emq {
namespace {

CalibrationWindows tiny_windows() {
  CalibrationWindows windows;
  windows.S = 32;
  for (int64_t i = 0; i < 3 * 32; ++i)
    windows.ids.push_back(static_cast<int32_t>(3 + (i * i + 7 * i) % 250));
  return windows;
}

Method asym_groups() {
  Method method;
  method.group = 32;
  method.grid = kernels::Grid::kAsym;
  method.rule = ScaleRule::kAbsMax;
  return method;
}

std::vector<MatrixTerms> tiny_terms(const models::SourceModel& source, int threads) {
  TermOptions options;
  options.samples = 200;
  options.windows = 3;
  options.threads = threads;
  return measure_terms(source, tiny_windows(), asym_groups(), options, {});
}

TEST(EmqTerms, AreTheModelsAndDoNotDependOnThreads) {
  const models::SourceModel source = models::tiny_model();
  const auto terms = tiny_terms(source, 1);
  ASSERT_EQ(terms.size(), 14u);
  EXPECT_EQ(terms[0].name, "model.layers.0.self_attn.q_proj");
  std::vector<float> w(static_cast<std::size_t>(terms[0].weights));
  source.read(terms[0].name, w);
  ASSERT_EQ(terms[0].fixed[0].size(), 200u);
  for (std::size_t i = 0; i < 200; ++i) {  // one weight out of each run, in their order
    const auto begin = w.begin() + static_cast<int64_t>(i) * terms[0].weights / 200;
    const auto end = w.begin() + static_cast<int64_t>(i + 1) * terms[0].weights / 200;
    EXPECT_NE(std::find(begin, end, terms[0].fixed[0][i]), end);
    EXPECT_GE(terms[0].fixed[1][i], 0);
    // Mean of squares and square of the mean.
    EXPECT_GE(terms[0].fixed[3][i], terms[0].fixed[2][i] * terms[0].fixed[2][i] * 0.999f);
  }
  const auto energy = [&](std::size_t width) {
    const auto& e = terms[0].error[width];
    return std::inner_product(e.begin(), e.end(), e.begin(), 0.0);
  };
  for (std::size_t width = 1; width < 4; ++width) EXPECT_LT(energy(width), energy(width - 1));
  const auto again = tiny_terms(source, 3);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    EXPECT_EQ(terms[i].fixed, again[i].fixed);
    EXPECT_EQ(terms[i].error, again[i].error);
  }
}

TEST(EmqProxy, EvaluatesItsTree) {
  MatrixTerms t;
  t.weights = 4;
  t.fixed = {{{1, -2, 3, -4}, {1, 1, 2, 2}, {0.5f, 0, -1, 2}, {1, 2, 3, 4}}};
  t.error = {{0.5f, -0.5f, 0.25f, 0}, {0.1f, 0, 0, 0}};
  const auto op = [](const char* name) {
    for (std::size_t i = 0; i < unary_ops().size(); ++i)
      if (std::string(unary_ops()[i].name) == name) return static_cast<int>(i);
    return -1;
  };
  // mean(square(E) * A) at both widths.
  Proxy p{Mode::kErr, {4, 1}, {{{op("square"), 0}, {0, 0}}}, 2};
  EXPECT_EQ(formula(p), "mean(A * square(E))");
  const std::vector<int> widths = {3, 4};
  const std::vector<MatrixTerms> terms = {t};
  const Scores scores = scores_of(p, terms, widths);
  EXPECT_NEAR(scores[0][0], (0.25 + 0.25 + 2 * 0.0625) / 4, 1e-7);
  EXPECT_NEAR(scores[0][1], 0.01 / 4, 1e-8);
  // mean(l1(W) - G) * b
  p = {Mode::kTimes, {0, 2}, {{{op("l1"), 0}, {0, 0}}}, 1};
  EXPECT_NEAR(scores_of(p, terms, widths)[0][1], 4 * (2.5 - 1.5 / 4), 1e-6);
  EXPECT_EQ(proxy_from_json(to_json(p)), p);
  const std::vector<int> plan = {1};
  EXPECT_EQ(score_of(scores, plan), scores[0][1]);
}

TEST(EmqProxy, JsonThatIsNoneIsRefused) {
  for (const char* text :
       {"", "[]", R"({"mode":"x"})",
        R"({"mode":"times","inputs":["E","W"],"unary":[["abs","abs"],["abs","abs"]],"binary":"+"})",
        R"({"mode":"err","inputs":["E","W"],"unary":[["abs","cos"],["abs","abs"]],"binary":"+"})",
        R"({"mode":"err","inputs":["E"],"unary":[["abs","abs"]],"binary":"+"})"})
    EXPECT_THROW(proxy_from_json(text), Error) << text;
}

TEST(Spearman, OfKnownRanks) {
  const std::vector<double> x = {1, 2, 3, 4, 5}, same = {10, 20, 30, 40, 1000},
                            back = {5, 4, 3, 2, 1}, ties = {1, 1, 2, 2, 3}, flat(5, 2.0);
  EXPECT_NEAR(spearman(x, same), 1, 1e-12);
  EXPECT_NEAR(spearman(x, back), -1, 1e-12);
  EXPECT_NEAR(spearman(x, ties), 0.9486832980505138, 1e-12);
  EXPECT_EQ(spearman(x, flat), 0);
  const auto [low, high] = spearman_interval(x, same, 1);
  EXPECT_LE(low, high);
}

// Plans whose cost is the sum of squared errors by the mean square of the inputs: evolution must
// find a formula that ranks them nearly as well.
struct MadeUp {
  std::vector<MatrixTerms> terms;
  Benchmark benchmark;
  std::vector<std::size_t> train;
};
MadeUp made_up() {
  MadeUp m;
  m.benchmark.widths = {2, 3, 4};
  for (int i = 0; i < 12; ++i) {
    MatrixTerms t;
    t.weights = 64;
    for (std::size_t f = 0; f < kFixedTerms; ++f) {
      t.fixed[f] = random_weights(64, static_cast<uint64_t>(10 * i) + f, 1.0f + 0.3f * float(i));
      if (f == 1 || f == 3)
        for (float& v : t.fixed[f]) v = std::abs(v);
    }
    for (int w = 0; w < 3; ++w)
      t.error.push_back(random_weights(64, static_cast<uint64_t>(1000 + 10 * i + w),
                                       std::ldexp(0.5f + 0.1f * float(i % 5), -w)));
    m.terms.push_back(t);
    m.benchmark.matrices.push_back(std::to_string(i));
  }
  std::mt19937 rng(5);
  for (int p = 0; p < 40; ++p) {
    std::vector<int> plan;
    double kl = 0;
    for (const MatrixTerms& t : m.terms) {
      plan.push_back(static_cast<int>(rng() % 3));
      const auto& e = t.error[static_cast<std::size_t>(plan.back())];
      for (std::size_t k = 0; k < e.size(); ++k)
        kl += static_cast<double>(e[k] * e[k] * t.fixed[1][k]) / 64;
    }
    m.benchmark.plans.push_back(plan);
    m.benchmark.kl.push_back(kl);
    m.benchmark.seeds.push_back(p);
    if (p % 2 == 0) m.train.push_back(static_cast<std::size_t>(p));
  }
  return m;
}

TEST(Evolution, FindsWhatRanksPlans) {
  const MadeUp m = made_up();
  EvolveOptions options;
  options.population = 20;
  options.iterations = 150;
  const EvolveReport report = evolve(m.terms, m.benchmark, m.train, options, {});
  EXPECT_GT(report.fitness, 0.9);
  EXPECT_TRUE(std::is_sorted(report.history.begin(), report.history.end()));
  EXPECT_EQ(report.history.size(), 150u);
  const Scores scores = scores_of(report.best, m.terms, m.benchmark.widths);
  EXPECT_EQ(std::abs(correlation(scores, m.benchmark, m.train)), report.fitness);
  // The same for a seed, whatever the threads, and another formula's path for another seed.
  options.threads = 3;
  EXPECT_EQ(formula(evolve(m.terms, m.benchmark, m.train, options, {}).best), formula(report.best));
}

TEST(Evolution, ScreeningSavesEvaluations) {
  const MadeUp m = made_up();
  EvolveOptions options;
  options.population = 20;
  options.iterations = 100;
  const EvolveReport with = evolve(m.terms, m.benchmark, m.train, options, {});
  options.screening = false;
  const EvolveReport without = evolve(m.terms, m.benchmark, m.train, options, {});
  EXPECT_GT(with.rejected, 0);
  EXPECT_GT(with.known, 0);
  EXPECT_EQ(without.known + without.rejected, 0);
  EXPECT_LT(with.evaluated, without.evaluated);
}

TEST(Evolution, CanBeStopped) {
  const MadeUp m = made_up();
  EXPECT_THROW(evolve(m.terms, m.benchmark, m.train, {}, [](int i, double) { return i < 3; }),
               Interrupted);
}

TEST(EmqBenchmark, IsReadAndRefused) {
  const Benchmark b = benchmark_from_json(
      R"({"matrices":["a","b"],"plans":[{"bits":"34","kl":0.5,"seed":0},{"bits":"28","kl":2,"seed":1}]})");
  EXPECT_EQ(b.widths, (std::vector<int>{2, 3, 4, 8}));
  EXPECT_EQ(b.plans[1], (std::vector<int>{0, 3}));
  EXPECT_EQ(only_widths(b, {3, 4}).kl, std::vector<double>{0.5});
  for (const char* text :
       {"", "{}", R"({"matrices":["a"],"plans":[{"bits":"34","kl":1,"seed":0}]})",
        R"({"matrices":["a"],"plans":[{"bits":"5","kl":1,"seed":0}]})",
        R"({"matrices":["a"],"plans":[{"bits":"4","kl":null,"seed":0}]})"})
    EXPECT_THROW(benchmark_from_json(text), Error) << text;
}

TEST(Emq, ItsPlanMeetsTheBudget) {
  const models::SourceModel source = models::tiny_model();
  QuantizeOptions options;
  options.linear = asym_groups();
  CalibrationText text;
  text.windows = tiny_windows();
  options.calibration = text;
  WidthRuleOptions rule;
  rule.rule = WidthRule::kEmq;
  rule.proxy = Proxy{Mode::kErr, {4, 1}, {{{2, 0}, {2, 0}}}, 2};
  const WidthRuleReport report = choose_by_rule(source, {4.5, 0}, rule, &options, {});
  EXPECT_LE(report.bytes, report.budget);
  EXPECT_GT(std::ranges::count(report.bits, 4) + std::ranges::count(report.bits, 8), 0);
  EXPECT_NE(options.allocation.find("mean("), std::string::npos);
}

}  // namespace
}  // namespace crumb::quant::emq
