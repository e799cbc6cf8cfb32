// A calibrated job that is stopped and started again writes what an undisturbed one writes.
#include "quant/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "models/file_writer.h"
#include "tests/quant/calibrated_job.h"

namespace crumb::quant {
namespace {

namespace fs = std::filesystem;
using test_jobs::calibrated;
using test_jobs::file_bytes;
using test_jobs::rotated_ldlq;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

class JournalTest : public testing::Test {
 protected:
  void SetUp() override {
    quantize(source_, options_, dir_.file("whole.crumb"), {});
    whole_ = file_bytes(dir_.file("whole.crumb"));
  }
  // Runs until the `stop`-th call of progress; true if it came to the end before.
  bool run_until(int stop, int threads = 2) {
    int calls = 0;
    QuantizeHooks hooks;
    hooks.notice = [this](const std::string& line) { notices_.push_back(line); };
    hooks.progress = [&](const Progress&) { return ++calls < stop; };
    options_.threads = threads;
    try {
      quantize(source_, options_, output_, hooks);
      return true;
    } catch (const Interrupted&) {
      return false;
    }
  }
  void expect_whole() {
    EXPECT_TRUE(run_until(1 << 30));
    EXPECT_TRUE(file_bytes(output_) == whole_);
    EXPECT_FALSE(fs::exists(output_ + ".journal"));
  }
  // With the first block finished and nothing after it.
  void stop_after_first_block() {
    for (int stop = 1; parts().empty(); ++stop) ASSERT_FALSE(run_until(stop));
    notices_.clear();
  }
  std::vector<fs::path> parts() const {
    std::vector<fs::path> all;
    if (fs::exists(output_ + ".journal"))
      for (const auto& entry : fs::directory_iterator(output_ + ".journal"))
        all.push_back(entry.path());
    return all;
  }

  test::TempDir dir_;
  models::SourceModel source_ = models::tiny_model({});
  QuantizeOptions options_ = calibrated(rotated_ldlq(3), source_);
  std::string whole_, output_ = dir_.file("m.crumb");
  std::vector<std::string> notices_;
};

TEST_F(JournalTest, StoppedAnywhereGivesTheSameBytes) {
  int stops = 0;
  for (int stop = 1; !run_until(stop, 1 + stop % 3); ++stop) {
    ++stops;
    expect_whole();
    fs::remove(output_);
  }
  EXPECT_GT(stops, 8);
  EXPECT_THAT(notices_, Contains(HasSubstr("came from the journal")));
}

TEST_F(JournalTest, StoppedAgainAndAgainItGetsThere) {
  int runs = 0;
  while (!run_until(3 + runs)) ASSERT_LT(++runs, 100);
  EXPECT_TRUE(file_bytes(output_) == whole_);
}

TEST_F(JournalTest, ExceptionKeepsTheJournalAndTheOldFile) {
  models::write_file(output_, "old");
  stop_after_first_block();
  EXPECT_EQ(file_bytes(output_), "old");
  expect_whole();
}

TEST_F(JournalTest, DamagedPartIsComputedAgain) {
  stop_after_first_block();
  const std::string part = parts().front().string();
  const std::string good = file_bytes(part);
  for (std::size_t at = 0; at < good.size(); at += good.size() / 7) {
    for (const bool cut : {false, true}) {
      std::string bad = good;
      if (cut)
        bad.resize(at);
      else
        bad[at] = static_cast<char>(bad[at] ^ 4);
      fs::create_directories(output_ + ".journal");
      models::write_file(part, bad);
      notices_.clear();
      expect_whole();
      EXPECT_THAT(notices_, Contains(AllOf(HasSubstr(part), HasSubstr("computed again"))));
    }
  }
}

TEST_F(JournalTest, OtherRecipeOrSourceStartsOver) {
  stop_after_first_block();
  const QuantizeOptions first = options_;
  options_.linear.bits = 2;
  EXPECT_TRUE(run_until(1 << 30));
  EXPECT_THAT(notices_, Contains(HasSubstr("starting over")));
  options_ = first;
  stop_after_first_block();
  source_.hash = "another";
  EXPECT_TRUE(run_until(1 << 30));
  EXPECT_THAT(notices_, Contains(HasSubstr("starting over")));
}

TEST_F(JournalTest, KeepsEveryField) {
  const Journal journal(dir_.file("j"), "recipe", {});
  StoredTensor packed;
  packed.name = "w";
  std::vector<float> w(40 * 64);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>((i * 37) % 101) - 50.0f;
  Method method;
  method.grid = kernels::Grid::kAsym;
  method.rotation = {64, 9};
  MatrixResult result = round_matrix(w, 40, 64, method, nullptr, "w", 1);
  packed.packed = result.packed;
  packed.report = result.report;
  packed.report.output_error = 0.25;
  packed.report.damping = 0.1;
  packed.report.shift_damping = 0.03;
  packed.report.dead = 3;
  journal.save(5, {packed, {"norm", {}, {1.0f, 2.0f}, {}}});
  EXPECT_FALSE(journal.load(4).has_value());
  const auto block = journal.load(5);
  ASSERT_TRUE(block.has_value() && block->size() == 2);
  const StoredTensor& back = block->front();
  EXPECT_EQ(back.name, "w");
  EXPECT_EQ(back.packed.codes, result.packed.codes);
  EXPECT_EQ(back.packed.scales, result.packed.scales);
  EXPECT_EQ(back.packed.zeros, result.packed.zeros);
  EXPECT_EQ(back.packed.rotation, method.rotation);
  EXPECT_EQ(back.packed.rows, 40);
  EXPECT_EQ(back.packed.cols, 64);
  EXPECT_EQ(back.packed.group, 64);
  EXPECT_EQ(back.packed.bits, 4);
  EXPECT_EQ(back.packed.grid, kernels::Grid::kAsym);
  EXPECT_EQ(back.report.name, "w");
  EXPECT_EQ(back.report.distortion.mse, result.report.distortion.mse);
  EXPECT_EQ(back.report.distortion.relative_error, result.report.distortion.relative_error);
  EXPECT_EQ(back.report.output_error, 0.25);
  EXPECT_EQ(back.report.damping, 0.1);
  EXPECT_EQ(back.report.shift_damping, 0.03);
  EXPECT_EQ(back.report.dead, 3);
  EXPECT_EQ(block->back().values, (std::vector<float>{1.0f, 2.0f}));
  journal.remove();
  EXPECT_FALSE(fs::exists(dir_.file("j")));
}

}  // namespace
}  // namespace crumb::quant
