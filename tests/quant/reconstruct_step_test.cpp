// Reconstruction inside the job, on the tiny model.
#include "quant/reconstruct_step.h"
#include "models/json.h"

#include <gtest/gtest.h>

#include <fstream>

#include "models/checkpoint.h"
#include "tests/quant/calibrated_job.h"

namespace crumb::quant {
namespace {

using test_jobs::file_bytes;

class ReconstructStep : public testing::Test {
 protected:
  // The linears in 2 bits, rotated nearest; all else in float.
  QuantizeOptions options(Reconstruction method) const {
    QuantizeOptions o;
    o.linear.bits = 2;
    o.linear.group = 0;
    o.linear.rotation = {32, 3};
    o.embedding.bits = o.head.bits = 32;
    CalibrationText text;
    text.windows = {40, test::some_ids(10 * 40, source_.config.vocab)};
    text.source = "test";
    o.calibration = std::move(text);
    o.reconstruction.method = method;
    o.reconstruction.kept_back = 2;
    o.reconstruction.epochs = 6;
    o.reconstruction.weight_rate = 0.02;
    o.threads = 2;
    return o;
  }
  QuantizeReport run(const QuantizeOptions& o, const std::string& name) {
    return quantize(source_, o, dir_.file(name), {});
  }

  test::TempDir dir_;
  models::SourceModel source_ = models::tiny_model({});
};

TEST_F(ReconstructStep, StoresWhatWasLearned) {
  const auto start = run(options(Reconstruction::kNone), "start.crumb");
  EXPECT_TRUE(start.reconstruction.empty());
  const auto report = run(options(Reconstruction::kBlockAp), "learned.crumb");
  ASSERT_EQ(std::ssize(report.reconstruction), source_.config.layers);
  const auto checkpoint = models::Checkpoint::open(dir_.file("learned.crumb"));
  EXPECT_TRUE(checkpoint.verify().empty());
  EXPECT_EQ(report.plan.bytes, start.plan.bytes);
  const auto json = nlohmann::json::parse(to_json(report, source_));
  ASSERT_EQ(std::ssize(json["reconstruction"]), source_.config.layers);
  for (std::size_t i = 0; i < report.reconstruction.size(); ++i) {
    EXPECT_TRUE(report.reconstruction[i].improved) << i;
    EXPECT_EQ(json["reconstruction"][i]["kept"], "learned");
  }
  const auto stage = json["recipe"]["stages"].back();
  EXPECT_EQ(stage["stage"], "reconstruct");
  EXPECT_EQ(stage["method"], "block-ap");
  EXPECT_EQ(stage["epochs"], 6);
  EXPECT_EQ(stage["weight_rate"], 0.02);
  EXPECT_GT(stage["scale_rate"], 0);

  // The first block's report is of the file's own weights: its loss, measured from the file.
  const models::SourceModel learned = models::open_source(dir_.file("learned.crumb"));
  const CalibrationWindows windows{40, test::some_ids(10 * 40, source_.config.vocab)};
  CalibrationOptions one_thread;
  one_thread.threads = 1;
  Calibrator calibrator(source_, windows, one_thread);
  const auto x = calibrator.full_stream();
  const train::BlockContext context(source_.config, windows.S);
  train::BlockActivations a(source_.config, windows.S);
  const auto size = static_cast<std::size_t>(windows.S * source_.config.dim);
  std::vector<float> target(size), y(size);
  double sum = 0;
  for (std::size_t i = 8; i < 10; ++i) {
    train::block_forward(context, train::read_block(source_, 0), x.subspan(i * size, size), a,
                         target);
    train::block_forward(context, train::read_block(learned, 0), x.subspan(i * size, size), a, y);
    for (std::size_t j = 0; j < size; ++j)
      sum += (static_cast<double>(y[j]) - target[j]) * (static_cast<double>(y[j]) - target[j]);
  }
  EXPECT_NEAR(sum / static_cast<double>(2 * size), report.reconstruction[0].mse_end,
              1e-3 * report.reconstruction[0].mse_end);
}

TEST_F(ReconstructStep, BytesDoNotDependOnThreads) {
  QuantizeOptions o = options(Reconstruction::kFlexRound);
  o.threads = 1;
  run(o, "one.crumb");
  o.threads = 4;
  run(o, "four.crumb");
  EXPECT_TRUE(file_bytes(dir_.file("one.crumb")) == file_bytes(dir_.file("four.crumb")));
}

TEST_F(ReconstructStep, InterruptedLeavesNothing) {
  const auto progress = [](const Progress& p) { return p.stage != "reconstruct" || p.done < 3; };
  EXPECT_THROW(quantize(source_, options(Reconstruction::kBlockAp), dir_.file("x.crumb"),
                        {{}, {}, progress}),
               Interrupted);
  EXPECT_FALSE(std::ifstream(dir_.file("x.crumb")).good());
}

}  // namespace
}  // namespace crumb::quant
