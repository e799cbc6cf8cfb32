// The calibrated job on the tiny model.
#include "quant/calibrated_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/checkpoint.h"
#include "models/errors.h"
#include "tests/quant/calibrated_job.h"

namespace crumb::quant {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

using test_jobs::calibrated;
using test_jobs::file_bytes;
using test_jobs::rotated_ldlq;

double sum_of_output_errors(const QuantizeReport& report) {
  double sum = 0;
  for (const TensorReport& tensor : report.tensors) sum += tensor.output_error.value_or(1e9);
  return sum;
}

class Calibrated : public testing::Test {
 protected:
  test::TempDir dir_;
  models::SourceModel source_ = models::tiny_model({});
};

TEST_F(Calibrated, BytesDoNotDependOnThreads) {
  QuantizeOptions options = calibrated(rotated_ldlq(3), source_);
  std::string first;
  for (const int threads : {1, 2, 5}) {
    options.threads = threads;
    quantize(source_, options, dir_.file("m.crumb"), {});
    EXPECT_TRUE(models::Checkpoint::open(dir_.file("m.crumb")).verify().empty());
    const std::string bytes = file_bytes(dir_.file("m.crumb"));
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first) << threads << " threads";
  }
}

TEST_F(Calibrated, LdlqLosesLessThanNearestWithTheSameScales) {
  Method method = rotated_ldlq(2);
  const auto ldlq = quantize(source_, calibrated(method, source_), dir_.file("a.crumb"), {});
  method.rounding = Rounding::kNearest;
  const auto nearest = quantize(source_, calibrated(method, source_), dir_.file("b.crumb"), {});
  EXPECT_EQ(ldlq.tensors.size(), nearest.tensors.size());
  // The exact proxy is in tests of LDLQ; here that the job hands it the right H.
  EXPECT_LT(sum_of_output_errors(ldlq), 0.85 * sum_of_output_errors(nearest));
}

// Column scales change what is stored, not what is computed before rounding: with 8 bits a group
// next to nothing is lost whatever the method.
TEST_F(Calibrated, EqualisedFilesComputeWhatTheSourceDoes) {
  Method method;
  method.bits = 8;
  method.group = 32;
  method.grid = kernels::Grid::kAsym;
  method.rule = ScaleRule::kAbsMax;
  const auto ids = test::some_ids(60, source_.config.vocab);
  SessionOptions session;
  session.kv = kernels::KvType::kF32;
  const auto logits = [&](Equalise equalise) {
    QuantizeOptions options = calibrated(method, source_);
    options.equalise.method = equalise;
    options.equalise.sinkhorn.tile = 32;
    const std::string path = dir_.file("e.crumb");
    quantize(source_, options, path, {});
    return test::all_logits(*Engine::load(path, {}), ids, session);
  };
  const auto plain = logits(Equalise::kNone);
  for (const auto& [name, equalise] : kEqualiseMethods) {
    if (equalise == Equalise::kNone) continue;
    const auto found = logits(equalise);
    double sum = 0;
    double size = 0;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      sum += std::pow(static_cast<double>(found[i]) - plain[i], 2);
      size += std::pow(static_cast<double>(plain[i]), 2);
    }
    EXPECT_GT(sum, 0) << name;
    EXPECT_LT(sum, 5e-3 * size) << name;  // int8 activations: 1.1e-3
  }
}

TEST_F(Calibrated, SinkhornNeedsNoDataAndItsBytesDoNotDependOnThreads) {
  QuantizeOptions options;
  options.linear.grid = kernels::Grid::kAsym;
  options.linear.group = 32;
  options.embedding.group = options.head.group = 0;
  options.equalise.method = Equalise::kSinkhorn;
  std::string first;
  for (const int threads : {1, 3}) {
    options.threads = threads;
    const auto report = quantize(source_, options, dir_.file("s.crumb"), {});
    EXPECT_THAT(report.recipe, HasSubstr(R"({"stage":"equalise","method":"sinkhorn")"));
    const std::string bytes = file_bytes(dir_.file("s.crumb"));
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first);
  }
}

TEST_F(Calibrated, ScalesByActivationAndRotationExcludeEachOther) {
  QuantizeOptions options = calibrated(rotated_ldlq(3), source_);
  options.equalise.method = Equalise::kAwq;
  try {
    quantize(source_, options, dir_.file("x.crumb"), {});
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("awq"));
  }
}

TEST_F(Calibrated, HeadOfItsOwnIsCalibratedToo) {
  models::TinyOptions untied;
  untied.tied_head = false;
  const auto source = models::tiny_model(untied);
  const auto report = quantize(source, calibrated(rotated_ldlq(4), source), dir_.file("m"), {});
  EXPECT_EQ(report.tensors.back().name, "lm_head");
  EXPECT_TRUE(report.tensors.back().output_error.has_value());
  EXPECT_FALSE(report.tensors.front().output_error.has_value());  // the embedding
}

TEST_F(Calibrated, StreamGoesOnThroughTheStoredWeights) {
  const QuantizeOptions options = calibrated(rotated_ldlq(2), source_);
  const train::BlockContext context(source_.config, options.calibration->windows.S);
  std::vector<float> expected;
  int64_t blocks = 0;
  BlockSteps steps;
  steps.reconstruct = [&](BlockAtWork& block, Calibrator& calibrator) {
    const auto stream = calibrator.prefix_stream();
    const bool same = std::equal(stream.begin(), stream.end(), expected.begin(), expected.end());
    EXPECT_TRUE(block.layer == 0 || same);
    expected.assign(stream.begin(), stream.end());
    const auto weights = restore_block(source_.config, block.stored, 1);
    train::BlockActivations activations(source_.config, context.S());
    const auto size = static_cast<std::size_t>(context.S() * source_.config.dim);
    for (std::size_t at = 0; at < expected.size(); at += size)
      train::block_forward(context, weights, std::span(expected).subspan(at, size), activations,
                           std::span(expected).subspan(at, size));
    ++blocks;
  };
  quantize(source_, options, dir_.file("m.crumb"), {steps, {}, {}});
  EXPECT_EQ(blocks, source_.config.layers);
}

TEST_F(Calibrated, EqualisedWeightsAreWhatIsStored) {
  const QuantizeOptions options = calibrated(rotated_ldlq(8), source_);
  BlockSteps steps;
  steps.equalise = [](BlockAtWork& block) {
    for (float& gain : block.weights.mlp_norm) gain *= 2.0f;
    for (float& w : block.weights.gate) w *= 0.5f;
    for (float& w : block.weights.up) w *= 0.5f;
  };
  quantize(source_, options, dir_.file("m.crumb"), {steps, {}, {}});
  const auto checkpoint = models::Checkpoint::open(dir_.file("m.crumb"));
  const std::string name = "model.layers.1.post_attention_layernorm.weight";
  std::vector<float> gain(static_cast<std::size_t>(source_.config.dim));
  source_.read(name, gain);
  const auto stored = checkpoint.vector(name);
  for (std::size_t i = 0; i < gain.size(); ++i) EXPECT_EQ(stored[i], 2.0f * gain[i]);
}

TEST_F(Calibrated, RestoreUndoesTheRotation) {
  Method method = rotated_ldlq(8);
  method.rounding = Rounding::kNearest;
  method.rule = ScaleRule::kAbsMax;
  std::vector<float> w(48 * 64);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>((i * 37) % 101) - 50.0f;
  const auto packed = round_matrix(w, 48, 64, method, nullptr, "w", 1).packed;
  const auto back = restore(packed, 2);
  double error = 0;
  double energy = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    error += (w[i] - back[i]) * (w[i] - back[i]);
    energy += w[i] * w[i];
  }
  EXPECT_LT(error, 1e-4 * energy);
}

TEST_F(Calibrated, RaisedDampingIsReported) {
  constexpr int64_t K = 64;
  std::vector<double> H(K * K);  // pairs with eigenvalues 2.02 and -0.02
  for (int64_t k = 0; k < K; ++k) {
    H[static_cast<std::size_t>(k * K + k)] = 1;
    H[static_cast<std::size_t>(k * K + (k ^ 1))] = 1.02;
  }
  Method method = rotated_ldlq(4);
  method.rotation = {};
  const std::vector<float> w(8 * K, 0.5f);
  for (const double asked : {0.01, 0.03}) {
    method.damping = asked;
    const PreparedInput input = prepare_input(H, K, method, "x", 1);
    const TensorReport report = round_matrix(w, 8, K, method, &input, "w", 1).report;
    EXPECT_EQ(report.damping, 0.03);
    EXPECT_EQ(report.damping_raised, asked < 0.03);
  }
}

// The moments of block 1's q, k and v inputs made into pairs with eigenvalues 1 + part, 1 - part.
QuantizeHooks with_pairs(double part, std::vector<std::string>* notices) {
  QuantizeHooks hooks;
  hooks.steps.equalise = [part](BlockAtWork& block) {
    if (block.layer != 1) return;
    auto& statistics = block.statistics.inputs[0];
    for (int64_t i = 0; i < statistics.K; ++i)
      for (int64_t j = 0; j < statistics.K; ++j)
        statistics.H[static_cast<std::size_t>(i * statistics.K + j)] = i == j         ? 1
                                                                       : (i ^ 1) == j ? part
                                                                                      : 0;
  };
  hooks.notice = [notices](const std::string& line) { notices->push_back(line); };
  return hooks;
}

TEST_F(Calibrated, RaisedDampingIsSaid) {
  Method method = rotated_ldlq(4);
  method.rotation = {};
  std::vector<std::string> notices;
  const auto report = quantize(source_, calibrated(method, source_), dir_.file("m.crumb"),
                               with_pairs(1.02, &notices));
  EXPECT_THAT(notices, Contains(AllOf(HasSubstr("damping raised to 0.03"),
                                      HasSubstr("model.layers.1.self_attn.q_proj"))));
  for (const TensorReport& tensor : report.tensors)
    EXPECT_EQ(tensor.damping,
              tensor.name.find("layers.1.self_attn.q") != std::string::npos ||
                      tensor.name.find("layers.1.self_attn.k") != std::string::npos ||
                      tensor.name.find("layers.1.self_attn.v") != std::string::npos
                  ? 0.03
                  : 0.01)
        << tensor.name;
}

TEST_F(Calibrated, NoDampingIsEnough) {
  Method method = rotated_ldlq(4);
  method.rotation = {};
  std::vector<std::string> notices;
  try {
    quantize(source_, calibrated(method, source_), dir_.file("m.crumb"), with_pairs(3, &notices));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNumeric);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("not positive"), HasSubstr("model.layers.1.self_attn.q_proj")));
  }
}

TEST_F(Calibrated, NotFiniteActivationsNameTheBlock) {
  auto source = source_;
  source.read = [this](std::string_view name, std::span<float> out) {
    source_.read(name, out);
    if (name == "model.layers.1.mlp.gate_proj" || name == "model.layers.1.mlp.up_proj")
      for (float& w : out) w *= 1e25f;
  };
  try {
    quantize(source, calibrated(rotated_ldlq(4), source), dir_.file("m.crumb"), {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNumeric);
    EXPECT_THAT(error.what(), HasSubstr("block 1, down_in"));
  }
}

TEST_F(Calibrated, BitsOfSingleMatrices) {
  QuantizeOptions options = calibrated(rotated_ldlq(2), source_);
  options.bits["model.layers.0.mlp.down_proj"] = 8;
  options.bits["model.layers.1.self_attn.q_proj"] = 3;
  quantize(source_, options, dir_.file("m.crumb"), {});
  const auto checkpoint = models::Checkpoint::open(dir_.file("m.crumb"));
  EXPECT_EQ(checkpoint.matrix("model.layers.0.mlp.down_proj").bands[0].bits, 8);
  EXPECT_EQ(checkpoint.matrix("model.layers.1.self_attn.q_proj").bands[0].bits, 3);
  EXPECT_EQ(checkpoint.matrix("model.layers.1.self_attn.k_proj").bands[0].bits, 2);
  options.bits["model.layers.9.mlp.down_proj"] = 8;
  EXPECT_THROW(quantize(source_, options, dir_.file("n.crumb"), {}), Error);
}

TEST_F(Calibrated, RefusesWithoutText) {
  QuantizeOptions options = calibrated(rotated_ldlq(4), source_);
  options.calibration.reset();
  try {
    quantize(source_, options, dir_.file("m.crumb"), {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("calibration"));
  }
}

}  // namespace
}  // namespace crumb::quant
