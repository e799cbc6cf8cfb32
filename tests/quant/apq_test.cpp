// APQ: the joint space, the meter of subnets, predictors and their transfer, evolution.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "models/errors.h"
#include "models/tiny_model.h"
#include "quant/apq/joint.h"
#include "quant/train/ops.h"
#include "tests/support/temp_dir.h"

namespace crumb::quant::apq {
namespace {

models::SourceModel model() {
  models::TinyOptions options;
  options.layers = 6;
  options.ffn = 128;
  return models::tiny_model(options);  // D 64, 4 heads of 2 KV heads of 16
}

constexpr std::array kWidths = {3, 4, 8};

Space space() { return space_of(model().config, kWidths); }

CalibrationWindows windows() {
  CalibrationWindows text{32, {}};
  for (int32_t i = 0; i < 64; ++i) text.ids.push_back(3 + i * i * 7 % 256);
  return text;
}

Method plain() {
  Method method;
  method.group = 32;
  method.grid = kernels::Grid::kAsym;
  method.rule = ScaleRule::kAbsMax;
  return method;
}

// Time in proportion to weights and bits, and something for each layer.
LatencyTable table_of(const models::ModelConfig& config, const Space& s) {
  LatencyTable table;
  table.head_ns = 500;
  table.layer_ns = 100;
  table.attention_ns = 50;
  for (const int64_t F : s.ffn)
    for (const int64_t kv : s.kv_heads) {
      const int64_t keys = kv * config.head_dim, queries = config.heads / config.kv_heads * keys;
      for (const auto& [rows, columns] : {std::pair{queries, config.dim},
                                          {keys, config.dim},
                                          {config.dim, queries},
                                          {F, config.dim},
                                          {config.dim, F}}) {
        const auto n = static_cast<double>(rows * columns);
        table.shapes[{rows, columns}] = {n * 0.02, n * 0.03, n * 0.04, n * 0.08};
      }
    }
  return table;
}

TEST(ApqSpace, SubnetsAreOfTheSpace) {
  const Space s = space();
  EXPECT_EQ(s.ffn, (std::vector<int64_t>{128, 112, 96, 64}));
  EXPECT_EQ(s.kv_heads, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(s.most_dropped, 1);
  std::mt19937_64 rng(1);
  for (int i = 0; i < 200; ++i) {
    const Subnet a = random_subnet(s, rng), b = mutated(s, a, 0.3, rng), c = crossed(s, a, b, rng);
    for (const Subnet& one : {a, b, c}) {
      EXPECT_EQ(subnet_from(s, text_of(one)), one);  // lawful, and written as read
      const auto code = architecture_code(s, one);
      EXPECT_EQ(std::accumulate(code.begin(), code.end(), 0.0f),
                static_cast<float>(3 * (s.layers - dropped(one))));
      EXPECT_EQ(width_code(s, one).size(), static_cast<std::size_t>(s.layers) * 4 * 3);
    }
  }
  EXPECT_EQ(sample_at(s, 1, 5), sample_at(s, 1, 5));
  EXPECT_NE(text_of(sample_at(s, 1, 5)), text_of(sample_at(s, 1, 6)));
  for (const char* bad :
       {"", "000000", "000000.000000.000000.000000.000000.00000",
        "-000000.000000.000000.000000.000000.000000", "000000.000000.900000.000000.000000.000000",
        "000000.000000.-000000.-000000.000000.000000"})
    EXPECT_THROW(subnet_from(s, bad), Error) << bad;
}

// The meter against the model written out: the same divergence by another way.
TEST(ApqMeter, MeasuresWhatThePrunedModelLoses) {
  const auto source = model();
  const Space s = space();
  const auto importance = measure_importance(source, windows(), 2, {});
  const Setting setting{source.config, s, importance};
  const SubnetMeter meter(source, windows(), plain(), 2, {});
  std::mt19937_64 rng(3);
  const Subnet whole = whole_subnet(s, 1);
  Subnet cut = mutated(s, whole, 0.5, rng);
  cut[2].present = false;
  cut[3].present = true;
  const std::vector<Candidate> candidates = {candidate_of(setting, whole, false),
                                             candidate_of(setting, cut, false),
                                             candidate_of(setting, cut, true)};
  const auto kl = meter.measure(candidates, {});
  EXPECT_LT(kl[0], 1e-6);
  EXPECT_GT(kl[1], 1e-4);
  EXPECT_GT(kl[2], kl[1] * 0.5);
  const SubnetMeter alone(source, windows(), plain(), 1, {});
  EXPECT_EQ(alone.measure(candidates, {}), kl);
  // The obvious twin: both models run whole, softmax in double.
  const auto logits = [](const models::SourceModel& m) {
    const train::BlockContext context(m.config, 32);
    std::vector<float> x = embedded(m, windows().ids), out(x.size());
    for (int64_t layer = 0; layer < m.config.layers; ++layer) {
      train::BlockActivations a(m.config, 32);
      for (std::size_t w = 0; w < 2; ++w)
        train::block_forward(context, train::read_block(m, layer),
                             std::span(x).subspan(w * 32 * 64, 32 * 64), a,
                             std::span(out).subspan(w * 32 * 64, 32 * 64));
      x = out;
    }
    std::vector<float> head(static_cast<std::size_t>(m.config.vocab * 64)), gain(64);
    m.read("model.embed_tokens", head);
    m.read("model.norm.weight", gain);
    std::vector<float> z(64 * static_cast<std::size_t>(m.config.vocab));
    train::rmsnorm(x, gain, m.config.norm_eps, out);
    train::linear(out, head, {}, 64, z);
    return z;
  };
  const auto p = logits(source), q = logits(prune(source, candidates[1].pruning));
  const auto V = static_cast<std::size_t>(source.config.vocab);
  double total = 0, count = 0;
  for (std::size_t t = 0; t < 64; ++t) {
    if (t % 32 < 4) continue;
    double sum_p = 0, sum_q = 0, mixed = 0;
    for (std::size_t v = t * V; v < (t + 1) * V; ++v) {
      sum_p += std::exp(static_cast<double>(p[v]));
      sum_q += std::exp(static_cast<double>(q[v]));
    }
    for (std::size_t v = t * V; v < (t + 1) * V; ++v)
      mixed += std::exp(static_cast<double>(p[v])) / sum_p *
               (static_cast<double>(p[v]) - static_cast<double>(q[v]));
    total += mixed - std::log(sum_p) + std::log(sum_q);
    ++count;
  }
  EXPECT_NEAR(kl[1], total / count, 1e-4 * total / count + 1e-6);
}

// A made-up quality: additive over layers, so that a predictor can learn it.
double made_up(const Space& s, const Subnet& subnet, bool rounded) {
  double loss = 0.05;
  for (std::size_t i = 0; i < subnet.size(); ++i) {
    const LayerChoice& layer = subnet[i];
    const double weight = 1 + static_cast<double>(i % 3);
    if (!layer.present) loss += 2 * weight;
    if (!layer.present) continue;
    loss += weight * (0.3 * layer.ffn + 0.5 * layer.kv_heads);
    for (const uint8_t bits : layer.bits)
      loss += rounded ? 0.2 * static_cast<double>(s.widths.size() - 1 - bits) : 0;
  }
  return loss;
}

TEST(ApqPredictor, LearnsAndFloatSubnetsHelp) {
  EXPECT_DOUBLE_EQ(kendall(std::vector<double>{1, 2, 3}, std::vector<double>{1, 2, 3}), 1);
  EXPECT_DOUBLE_EQ(kendall(std::vector<double>{1, 2, 3}, std::vector<double>{3, 2, 1}), -1);
  EXPECT_DOUBLE_EQ(kendall(std::vector<double>{1, 1}, std::vector<double>{3, 2}), 0);
  const Space s = space();
  std::vector<Example> whole, rounded;
  for (int64_t i = 0; i < 150; ++i) {
    const Subnet a = sample_at(s, 1, 2 * i), b = sample_at(s, 1, 2 * i + 1);
    whole.push_back(example_of(s, a, false, made_up(s, a, false)));
    rounded.push_back(example_of(s, b, true, made_up(s, b, true)));
  }
  const std::vector<int64_t> sizes = {20, 80};
  const FitOptions quick{200, 5e-3, 1e-2, 48};
  const auto rows = measure_transfer(whole, rounded, 50, sizes, 3, 1, 2, quick);
  ASSERT_EQ(rows.size(), 2u);
  const auto mean = [](const std::vector<double>& x) {
    return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
  };
  EXPECT_GT(mean(rows[1].with), 0.6);
  EXPECT_GT(mean(rows[0].with), mean(rows[0].without) + 0.05);
  const auto again = measure_transfer(whole, rounded, 50, sizes, 3, 1, 1, quick);
  EXPECT_EQ(again[0].with, rows[0].with);
}

TEST(ApqEvolution, CrossoverSurvivesAndLimitsHold) {
  const Space s = space();
  const auto config = model().config;
  const LatencyTable table = table_of(config, s);
  const Cost cost = [&](const Subnet& one) { return latency_of(table, config, s, one); };
  const Score score = [&](std::span<const Subnet> some) {
    std::vector<double> out;
    for (const Subnet& one : some) out.push_back(-made_up(s, one, true));
    return out;
  };
  const double limit = 0.75 * cost(whole_subnet(s, 1));
  EvolveOptions options;
  options.population = 40;
  options.parents = 10;
  options.mutants = 20;
  options.crossovers = 20;
  options.generations = 60;
  const auto report = evolve(s, score, cost, limit, {}, options, {});
  ASSERT_FALSE(report.best.empty());
  for (const Found& one : report.best) EXPECT_LE(one.ns, limit);
  EXPECT_GT(report.crossed_survivors, 0);
  EXPECT_GT(report.rejected, 0);
  EXPECT_TRUE(std::ranges::is_sorted(report.history));
  EXPECT_EQ(text_of(evolve(s, score, cost, limit, {}, options, {}).best.front().subnet),
            text_of(report.best.front().subnet));
  // Children of two alone find better than the first population, too.
  options.mutants = 0;
  const auto only_crossed = evolve(s, score, cost, limit, {}, options, {});
  EXPECT_GT(only_crossed.history.back(), only_crossed.history.front());
  EXPECT_THROW(evolve(s, score, cost, 1.0, {}, options, {}), Error);
  int calls = 0;
  EXPECT_THROW(evolve(s, score, cost, limit, {}, options, [&](int, double) { return ++calls < 3; }),
               Interrupted);
}

TEST(ApqLatency, HostileTablesAreRefused) {
  for (const char* bad :
       {"", "{}", R"({"schema":"crumb.latency/1"})",
        R"({"schema":"crumb.latency/1","shapes":[{}],"model":{}})",
        R"({"schema":"crumb.latency/1","shapes":[7],"model":{}})",
        R"({"schema":"crumb.latency/1","shapes":[{"rows":1,"cols":1,"ns":[1]}]})",
        R"({"schema":"crumb.latency/1","shapes":[],"model":{"head_ns":"x"}})", R"({"schema":1})",
        R"({"schema":"crumb.latency/1","shapes":[{"rows":1e300,"cols":1,
                              "ns":[1,1,1,1]}],"model":{}})",
        R"({"schema":"crumb.latency/1","shapes":[],"cpu":3,"model":{"head_ns":1,
                              "layer_ns":1,"attention_ns":1,"context":1}})"})
    EXPECT_THROW(latency_from_json(bad, "t"), Error) << bad;
  EXPECT_THROW(LatencyTable().matrix_ns(1, 1, 4), Error);
}

class ApqJoint : public testing::Test {
 protected:
  JointReport search(int threads, const std::string& journal) {
    const Space s = space();
    const auto importance = measure_importance(source_, windows(), threads, {});
    const Setting setting{source_.config, s, importance};
    const Method method = plain();
    const SubnetMeter meter(source_, windows(), method, threads, {});
    SampleStore store(journal, "tiny");
    JointOptions options;
    options.samples = options.rounded = 24;
    options.held_out = 10;
    options.transfer_sizes = {10};
    options.transfer_splits = 1;
    options.verified = 3;
    options.controls = 2;
    options.limits = {0.6, 0.8};
    options.evolve.population = options.evolve.mutants = options.evolve.crossovers = 10;
    options.evolve.parents = 5;
    options.evolve.generations = 10;
    options.fit = {60, 5e-3, 1e-2, 16};
    options.threads = threads;
    return search_jointly(source_, meter, setting, table_of(source_.config, s), method, options,
                          &store, {});
  }
  const models::SourceModel source_ = model();
};

TEST_F(ApqJoint, FindsVerifiesAndGoesOn) {
  const test::TempDir dir;
  const JointReport report = search(2, dir.file("journal"));
  ASSERT_EQ(report.limits.size(), 2u);
  // A looser limit is never worse, and winners keep to theirs.
  EXPECT_LE(report.limits[1].joint.kl, report.limits[0].joint.kl);
  for (const LimitReport& limit : report.limits) {
    EXPECT_LE(limit.joint.ns, limit.ns);
    ASSERT_EQ(limit.sequential.size(), std::size(kSplits));
    for (const Winner& one : limit.sequential) EXPECT_LE(one.ns, limit.ns);
  }
  // From the journal: the same without measuring. A damaged one is refused, another model's too.
  const JointReport again = search(1, dir.file("journal"));
  EXPECT_EQ(text_of(again.limits[0].joint.subnet), text_of(report.limits[0].joint.subnet));
  EXPECT_EQ(again.limits[0].joint.kl, report.limits[0].joint.kl);
  EXPECT_THROW(SampleStore(dir.file("journal"), "other"), Error);
  std::ofstream(dir.file("journal"), std::ios::app) << "{\"subnet\":\n";
  EXPECT_THROW(SampleStore(dir.file("journal"), "tiny"), FormatError);
}

}  // namespace
}  // namespace crumb::quant::apq
