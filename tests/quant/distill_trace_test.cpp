// Ten steps of the CPU's distiller against tests/golden/distill_trace.json, which numpy computed in
// float64 from the formulas (tests/golden/make_distill_trace.py).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "models/checkpoint.h"
#include "models/json.h"
#include "quant/rotation.h"
#include "quant/train/cpu_distiller.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t kWindow = 16, kBatch = 2, kSteps = 10, kWarmup = 2;

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

uint64_t mix(uint64_t counter) {
  uint64_t z = counter * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

std::vector<float> drawn(uint64_t stream, int64_t n, double size, double centre = 0) {
  std::vector<float> values;
  for (uint64_t i = 0; i < static_cast<uint64_t>(n); ++i) {
    const double u = static_cast<double>(mix((stream << 32) + i + 1) >> 40) / 16777216.0;
    values.push_back(static_cast<float>(centre + size * (2 * u - 1)));
  }
  return values;
}

models::ModelConfig config() {
  models::ModelConfig c;
  c.architecture = "llama";
  c.name = "trace";
  c.layers = 2;
  c.dim = 64;
  c.ffn = 128;
  c.heads = 2;
  c.kv_heads = 1;
  c.head_dim = 32;
  c.vocab = 64;
  c.context = kWindow;
  return c;
}

models::SourceModel teacher() {
  models::SourceModel model;
  model.config = config();
  std::map<std::string, std::vector<float>, std::less<>> tensors;
  tensors["model.embed_tokens"] = drawn(1, 64 * 64, 0.5);
  tensors["model.norm.weight"] = drawn(2, 64, 0.2, 1);
  uint64_t i = 0;
  for (const MatrixPart& part : matrix_parts(parameter_layout(model.config))) {
    const uint64_t stream = 300 + 10 * (i / 7) + i % 7;
    tensors[part.name] = drawn(stream, part.N * part.K, 2 / std::sqrt(static_cast<double>(part.K)));
    ++i;
  }
  for (uint64_t l = 0; l < 2; ++l) {
    const auto layer = static_cast<int64_t>(l);
    tensors[models::layer_tensor(layer, "input_layernorm.weight")] = drawn(100 + l, 64, 0.2, 1);
    tensors[models::layer_tensor(layer, "post_attention_layernorm.weight")] =
        drawn(200 + l, 64, 0.2, 1);
  }
  model.read = [tensors](std::string_view name, std::span<float> out) {
    const auto& values = tensors.find(name)->second;
    ASSERT_EQ(values.size(), out.size());
    std::copy(values.begin(), values.end(), out.begin());
  };
  return model;
}

// INT2 SEQ, a scale a row of the mean weight, masters where they are.
Student start(const models::SourceModel& model) {
  Student s{model.config, {64, 7}, parameter_layout(model.config), {}, {}, {}, {}};
  s.parts = matrix_parts(s.layout);
  s.parameters.resize(size_of(s.layout.size));
  for (const MatrixPart& part : s.parts) {
    s.forms.push_back({2, kernels::Grid::kSeq});
    s.zeros.emplace_back();
    const auto w =
        std::span(s.parameters).subspan(size_of(part.master_at), size_of(part.N * part.K));
    model.read(part.name, w);
    rotate_rows(w, part.K, s.rotation);
    for (int64_t n = 0; n < part.N; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < part.K; ++k)
        sum += std::abs(static_cast<double>(w[size_of(n * part.K + k)]));
      s.parameters[size_of(part.scale_at + n)] =
          static_cast<float>(std::log(sum / static_cast<double>(part.K)));
    }
  }
  const auto norm = [&](const std::string& name, int64_t index) {
    model.read(name, std::span(s.parameters).subspan(size_of(s.layout.norm_at(index, 64)), 64));
  };
  for (int64_t l = 0; l < 2; ++l) {
    norm(models::layer_tensor(l, "input_layernorm.weight"), 2 * l);
    norm(models::layer_tensor(l, "post_attention_layernorm.weight"), 2 * l + 1);
  }
  norm("model.norm.weight", 4);
  return s;
}

// Float32 against float64 for ten steps: rounding alone is some 1e-6; a code or a binary16 scale
// that falls to the other side of a border moves the loss by up to 1e-4 of itself.
constexpr double kTolerance = 3e-4;

TEST(DistillTrace, TenStepsAreNumpysInFloat64) {
  std::ifstream file(CRUMB_DISTILL_TRACE);
  const auto expected = nlohmann::json::parse(file);
  std::vector<int32_t> ids;
  for (uint64_t i = 0; i < kBatch * kWindow; ++i)
    ids.push_back(static_cast<int32_t>(mix((uint64_t{50} << 32) + i + 1) % 64));
  const models::SourceModel model = teacher();
  for (const char* kind : {"forward_kl", "jsd"}) {
    const auto distiller = make_cpu_distiller(model, model, start(model), kWindow);
    double worst = 0;
    for (int64_t t = 1; t <= kSteps; ++t) {
      const double share = cosine_schedule(t, kSteps, kWarmup, 0.05);
      StepOptions options;
      options.loss = {kind == std::string("jsd") ? LossKind::kJsd : LossKind::kForwardKl, 0.5f};
      options.masters = options.norms = adam_step({0.9, 0.95, 1e-8, 0}, t, 4e-3 * share);
      options.scales = adam_step({0.9, 0.95, 1e-8, 0}, t, 8e-3 * share);
      options.gradient_limit = 0.5;
      const StepReport report = distiller->step(ids, options);
      const auto& line = expected.at(kind).at(size_of(t - 1));
      const auto compare = [&](const char* name, double found) {
        const double value = line.at(name);
        worst = std::max(worst, std::abs(found / value - 1));
        EXPECT_NEAR(found, value, kTolerance * value) << kind << " step " << t << ' ' << name;
      };
      compare("loss", report.loss);
      compare("kl", report.kl);
      compare("gradient_norm", report.gradient_norm);
    }
    std::printf("  %s: largest relative difference %.1e\n", kind, worst);
  }
}

}  // namespace
}  // namespace crumb::quant::train
