// An adapter's step on the GPU against the CPU's on a tiny decoder.
#include "models/tiny_model.h"
#include "quant/train/cuda/cuda_adapter.h"
#include "tests/quant/cuda/gpu.h"

namespace crumb::quant::train::cuda {
namespace {

constexpr int64_t kB = 4, kS = 64, kF = 96, kRows = 9;

models::SourceModel decoder() {
  models::TinyOptions tiny;
  tiny.dim = 128;
  tiny.ffn = 192;
  tiny.head_dim = 64;
  tiny.vocab = 320;
  return models::tiny_model(tiny);
}

// Every third sample is of text alone; the last sixteen tokens are the answer.
struct Samples {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> features;
  std::vector<uint8_t> scored = std::vector<uint8_t>(kS);
  std::vector<AdapterSample> all;
  explicit Samples(int64_t count) {
    std::fill(scored.end() - 16, scored.end(), uint8_t{1});
    for (int64_t i = 0; i < count; ++i) {
      auto& row = ids.emplace_back();
      for (int64_t t = 0; t < kS; ++t)
        row.push_back(static_cast<int32_t>((t * t * 7 + 31 * i + 3) % 320));
      features.push_back(i % 3 == 2 ? std::vector<float>{}
                                    : bf16_values(kRows * kF, 70 + static_cast<uint64_t>(i)));
    }
    for (std::size_t i = 0; i < ids.size(); ++i) all.push_back({ids[i], scored, features[i], 5});
  }
};

std::vector<float> parameters(const AdapterLayout& layout) {
  auto p = initial_adapter(layout, 3);
  const auto noise = random_weights(layout.size, 5, 0.05f);
  for (std::size_t i = 0; i < p.size(); ++i) p[i] += noise[i];
  return p;
}

// With beta1 = 0 the first moment is the gradient itself. One batch and two.
TEST_F(Gpu, AnAdaptersGradientsAreTheCpus) {
  for (const int64_t batches : {1, 2}) {
    for (const int64_t rank : {0, 8}) {
      SCOPED_TRACE("rank " + std::to_string(rank) + ", batches " + std::to_string(batches));
      const AdapterLayout layout = adapter_layout(decoder().config, {kF, 64, rank, 16});
      const auto start = parameters(layout);
      const auto gpu = make_adapter_trainer(decoder(), layout, start, {kB, kS, 100, 0});
      const auto cpu = make_cpu_adapter_trainer(decoder(), layout, start, kS, 2);
      const Samples samples(batches * kB);
      const AdamStep step = adam_step({0.0, 0.99, 1e-8, 0}, 1, 1e-3);
      const AdapterReport a = gpu->step(samples.all, step, step, 1e9);
      const AdapterReport b = cpu->step(samples.all, step, step, 1e9);
      EXPECT_EQ(a.tokens, b.tokens);
      EXPECT_NEAR(a.loss, b.loss, 5e-3 * b.loss);
      EXPECT_NEAR(a.correct, b.correct, 0.04);
      EXPECT_NEAR(a.gradient_norm, b.gradient_norm, 2e-2 * b.gradient_norm);
      const AdapterState x = gpu->state(), y = cpu->state();
      const auto expect = [&](const char* name, int64_t at, int64_t n) {
        const auto part = [&](const std::vector<float>& v) {
          return std::span(v).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n));
        };
        expect_close(part(x.mean), part(y.mean), 5e-2, name);
      };
      expect("d W1", layout.w1_at, 64 * kF);
      expect("d b1", layout.b1_at, 64);
      expect("d W2", layout.w2_at, 128 * 64);
      expect("d b2", layout.b2_at, 128);
      if (rank > 0) expect("d A, d B", layout.projector, layout.size - layout.projector);
    }
  }
}

TEST_F(Gpu, AnAdapterLearnsAndItsStateIsItself) {
  const AdapterLayout layout = adapter_layout(decoder().config, {kF, 64, 8, 16});
  const auto trainer =
      make_adapter_trainer(decoder(), layout, initial_adapter(layout, 1), {kB, kS, 256, 0});
  const Samples samples(kB);
  const double before = trainer->evaluate(samples.all).loss;
  for (int64_t t = 1; t <= 60; ++t)
    trainer->step(samples.all, adam_step({}, t, 3e-3), adam_step({}, t, 3e-3), 1.0);
  const double after = trainer->evaluate(samples.all).loss;
  EXPECT_LT(after, 0.7 * before);
  const auto other =
      make_adapter_trainer(decoder(), layout, initial_adapter(layout, 2), {kB, kS, 256, 0});
  other->set_state(trainer->state());
  EXPECT_EQ(other->evaluate(samples.all).loss, after);
}

}  // namespace
}  // namespace crumb::quant::train::cuda
