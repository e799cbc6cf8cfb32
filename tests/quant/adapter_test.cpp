// An adapter's gradients against finite differences, its training on a tiny decoder, the model with
// the changes in its matrices.
#include "quant/train/adapter_trainer.h"

#include <gtest/gtest.h>

#include "models/errors.h"
#include "models/tiny_model.h"
#include "tests/engine/tiny.h"
#include "tests/quant/finite_difference.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t kS = 12, kF = 10, kRows = 4;

models::SourceModel decoder() { return models::tiny_model({}); }

AdapterLayout layout(int64_t rank = 2) {
  return adapter_layout(decoder().config, {kF, 6, rank, 4});
}

// Random parameters everywhere, so that no gradient is 0 by B.
std::vector<float> some_parameters(const AdapterLayout& l) {
  auto p = initial_adapter(l, 3);
  const auto noise = random_weights(l.size, 5, 0.1f);
  for (std::size_t i = 0; i < p.size(); ++i) p[i] += noise[i];
  return p;
}

// Samples 0 and 2 with an image, 1 of text alone; the last four tokens are the answer.
struct Samples {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> features;
  std::vector<uint8_t> scored = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1};
  std::vector<AdapterSample> all;
  explicit Samples(int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      ids.push_back(test::some_ids(kS, 200));
      for (auto& id : ids.back()) id = static_cast<int32_t>((id + 37 * i) % 250);
      features.push_back(i % 2 == 1
                             ? std::vector<float>{}
                             : random_weights(kRows * kF, 50 + static_cast<uint64_t>(i), 1.0f));
    }
    for (std::size_t i = 0; i < ids.size(); ++i) all.push_back({ids[i], scored, features[i], 2});
  }
};

// Without momentum the first moment after a step of no length is the gradient.
TEST(Adapter, ItsGradientIsTheFiniteDifference) {
  const AdapterLayout l = layout();
  const auto trainer = make_cpu_adapter_trainer(decoder(), l, some_parameters(l), kS, 1);
  const Samples samples(3);
  const AdamStep still = adam_step({0.0, 0.99, 1e-8, 0}, 1, 0);
  trainer->step(samples.all, still, still, 1e9);
  AdapterState state = trainer->state();
  const auto gradient = state.mean;
  auto& p = state.parameters;
  const auto expect_part = [&](const std::string& name, int64_t at, int64_t n) {
    const auto part = [&](auto& all) {
      return std::span(all).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n));
    };
    expect_gradient(
        name, part(p), part(gradient),
        [&] {
          trainer->set_state(state);
          return trainer->evaluate(samples.all).loss;
        },
        2e-3, 2e-3f);
  };
  expect_part("projector", 0, l.projector);
  for (const std::size_t i : {0, 3, 6, 11}) {
    const AdapterMatrix& m = l.matrices[i];
    expect_part("A of " + m.name, m.a_at, l.shape.rank * m.K);
    expect_part("B of " + m.name, m.b_at, m.N * l.shape.rank);
  }
}

TEST(Adapter, BeginsAsTheDecoder) {
  const AdapterLayout l = layout();
  const auto merged = with_adapter(decoder(), l, initial_adapter(l, 1));
  const auto changed = with_adapter(decoder(), l, some_parameters(l));
  const auto read = [](const models::SourceModel& source, const std::string& name, int64_t n) {
    std::vector<float> w(static_cast<std::size_t>(n));
    source.read(name, w);
    return w;
  };
  for (const AdapterMatrix& m : l.matrices) {
    const auto was = read(decoder(), m.name, m.N * m.K);
    EXPECT_EQ(read(merged, m.name, m.N * m.K), was);
    EXPECT_TRUE(read(changed, m.name, m.N * m.K) != was) << m.name;
  }
  EXPECT_EQ(read(changed, "model.norm.weight", 64), read(decoder(), "model.norm.weight", 64));
}

// W + (alpha / r) B A by the obvious loops.
TEST(Adapter, TheChangeIsTheProductOfItsFactors) {
  const AdapterLayout l = layout();
  const auto p = some_parameters(l);
  const AdapterMatrix& m = l.matrices[4];
  std::vector<float> w(static_cast<std::size_t>(m.N * m.K), 1.0f);
  add_low_rank(l, m, p, w);
  for (int64_t n = 0; n < m.N; ++n)
    for (int64_t k = 0; k < m.K; ++k) {
      double sum = 1;
      for (int64_t r = 0; r < 2; ++r)
        sum += 2.0 * static_cast<double>(p[static_cast<std::size_t>(m.b_at + n * 2 + r)]) *
               static_cast<double>(p[static_cast<std::size_t>(m.a_at + r * m.K + k)]);
      ASSERT_NEAR(w[static_cast<std::size_t>(n * m.K + k)], sum, 1e-5);
    }
}

// Answers that depend on the picture alone are learned: the ids of two samples are equal.
TEST(Adapter, LearnsToSee) {
  for (const int64_t rank : {0, 4}) {
    const AdapterLayout l = adapter_layout(decoder().config, {kF, 32, rank, 8});
    const auto trainer = make_cpu_adapter_trainer(decoder(), l, initial_adapter(l, 2), kS, 2);
    Samples samples(4);
    for (std::size_t i = 0; i < 4; ++i) {
      samples.ids[i] = samples.ids[0];
      samples.features[i] = random_weights(kRows * kF, 80 + i, 1.0f);
      for (std::size_t t = 8; t < 12; ++t)
        samples.ids[i][t] = static_cast<int32_t>(20 + 5 * i + t % 2);
      samples.all[i] = {samples.ids[i], samples.scored, samples.features[i], 2};
    }
    const AdapterReport before = trainer->evaluate(samples.all);
    EXPECT_EQ(before.tokens, 16);
    for (int64_t t = 1; t <= 120; ++t)
      trainer->step(samples.all, adam_step({}, t, 1e-2), adam_step({}, t, 1e-2), 1.0);
    const AdapterReport after = trainer->evaluate(samples.all);
    EXPECT_LT(after.loss, 0.3 * before.loss) << rank;
    EXPECT_GT(after.correct, 0.7) << rank;
  }
}

TEST(Adapter, DoesNotDependOnThreads) {
  const AdapterLayout l = layout();
  const Samples samples(5);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3}) {
    const auto trainer = make_cpu_adapter_trainer(decoder(), l, some_parameters(l), kS, threads);
    for (int64_t t = 1; t <= 3; ++t)
      trainer->step(samples.all, adam_step({}, t, 1e-3), adam_step({}, t, 1e-3), 1.0);
    results.push_back(trainer->state().parameters);
  }
  EXPECT_EQ(results[0], results[1]);
}

// The merged model in the engine has the trainer's predictions.
TEST(Adapter, TheMergedModelIsTheOneThatWasTrained) {
  const AdapterLayout l = layout();
  const auto p = some_parameters(l);
  const auto trainer = make_cpu_adapter_trainer(decoder(), l, p, kS, 1);
  const Samples samples(2);
  const AdapterReport text = trainer->evaluate({&samples.all[1], 1});
  LoadOptions load;
  load.pin = false;
  const auto engine = Engine::from_source(with_adapter(decoder(), l, p), load);
  SessionOptions options;
  options.kv = kernels::KvType::kF32;
  const auto logits = test::all_logits(*engine, samples.ids[1], options);
  double loss = 0;
  const auto V = static_cast<std::size_t>(decoder().config.vocab);
  for (std::size_t t = 7; t < 11; ++t) {
    const auto z = std::span(logits).subspan(t * V, V);
    double sum = 0;
    for (const float v : z) sum += std::exp(static_cast<double>(v));
    loss += std::log(sum) - static_cast<double>(z[static_cast<std::size_t>(samples.ids[1][t + 1])]);
  }
  EXPECT_NEAR(text.loss, loss / 4, 1e-5);
}

TEST(Adapter, RefusesWhatDoesNotFit) {
  EXPECT_THROW(adapter_layout(decoder().config, {0, 6, 2, 4}), Error);
  EXPECT_THROW(adapter_layout(decoder().config, {kF, 6, -1, 4}), Error);
  const AdapterLayout l = layout();
  const auto trainer = make_cpu_adapter_trainer(decoder(), l, some_parameters(l), kS, 1);
  const Samples good(1);
  const auto refuse = [&](auto change) {
    AdapterSample sample = good.all[0];
    change(sample);
    EXPECT_THROW(trainer->evaluate({&sample, 1}), Error);
  };
  refuse([](AdapterSample& s) { s.ids = s.ids.first(5); });
  refuse([](AdapterSample& s) { s.image_at = 9; });
  refuse([](AdapterSample& s) { s.image_at = -1; });
  refuse([](AdapterSample& s) { s.features = s.features.first(kF + 1); });
  const std::vector<uint8_t> none(kS);
  refuse([&](AdapterSample& s) { s.scored = none; });
  const std::vector<int32_t> beyond(kS, 300);
  refuse([&](AdapterSample& s) { s.ids = beyond; });
}

}  // namespace
}  // namespace crumb::quant::train
