// Costs of widths that are stopped and asked for again are those of an undisturbed measurement.
#include "quant/cost_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "models/file_writer.h"
#include "tests/quant/calibrated_job.h"

namespace crumb::quant {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;

void expect_equal(const std::vector<MatrixCosts>& found, const std::vector<MatrixCosts>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].name, expected[i].name);
    EXPECT_EQ(found[i].N, expected[i].N);
    EXPECT_EQ(found[i].K, expected[i].K);
    EXPECT_EQ(found[i].strips, expected[i].strips);
    EXPECT_EQ(found[i].columns, expected[i].columns);
  }
}

class CostJournalTest : public testing::Test {
 protected:
  CostJournal journal() {
    return {folder_, source_, options_, costs_,
            [this](const std::string& line) { notices_.push_back(line); }};
  }
  // Until the `stop`-th call of progress; nothing if that came.
  std::optional<std::vector<MatrixCosts>> run_until(int stop, int threads) {
    int calls = 0;
    options_.threads = threads;
    const CostJournal kept = journal();
    try {
      return measure_model(source_, options_, costs_, &kept,
                           [&](const Progress&) { return ++calls < stop; });
    } catch (const Interrupted&) {
      return std::nullopt;
    }
  }

  test::TempDir dir_;
  models::SourceModel source_ = models::tiny_model({});
  QuantizeOptions options_ = test_jobs::calibrated(test_jobs::rotated_ldlq(4), source_);
  CostOptions costs_ = {4, 1};
  std::string folder_ = dir_.file("m.crumb.costs");
  std::vector<std::string> notices_;
};

TEST_F(CostJournalTest, StoppedAnywhereItGoesOn) {
  const auto whole = measure_model(source_, options_, costs_, nullptr, {});
  int stops = 0;
  for (int stop = 1; !run_until(stop, 1 + stop % 3); ++stop) {
    ++stops;
    const auto again = run_until(1 << 30, 2);
    ASSERT_TRUE(again);
    expect_equal(*again, whole);
    journal().remove();
  }
  EXPECT_GT(stops, 5);
  // Everything is there: nothing is walked again.
  const auto kept = run_until(1, 2);
  ASSERT_TRUE(kept);
  expect_equal(*kept, whole);
}

TEST_F(CostJournalTest, AnotherTextOrMethodStartsOver) {
  ASSERT_TRUE(run_until(1 << 30, 2));
  EXPECT_TRUE(run_until(1, 2));
  options_.linear.order = ColumnOrder::kActOrder;
  EXPECT_FALSE(run_until(1, 2));
  EXPECT_THAT(notices_, Contains(HasSubstr("starting over")));
  ASSERT_TRUE(run_until(1 << 30, 2));
  options_.calibration->windows.ids[0] ^= 1;
  EXPECT_FALSE(run_until(1, 2));
  ASSERT_TRUE(run_until(1 << 30, 2));
  costs_.output_windows = 3;
  EXPECT_FALSE(run_until(1, 2));
}

TEST_F(CostJournalTest, DamagedPartIsMeasuredAgain) {
  const auto whole = *run_until(1 << 30, 2);
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string part = entry.path().string();
    std::string bytes = test_jobs::file_bytes(part);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    models::write_file(part, bytes);
  }
  expect_equal(*run_until(1 << 30, 2), whole);
  EXPECT_THAT(notices_, Contains(HasSubstr("computed again")));
}

}  // namespace
}  // namespace crumb::quant
