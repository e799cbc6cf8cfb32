// Where a prompt goes, how a step's rows are divided, and the log-probabilities of a row.
#include "apps/serve/slot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "apps/serve/logprobs.h"
#include "engine/logit_blocks.h"
#include "engine/rng.h"
#include "tests/engine/tiny.h"

namespace crumb::serve {
namespace {

class Choosing : public testing::Test {
 protected:
  Choosing() : batch_(test::tiny_engine({"f32", 32, 0}), {.max_rows = 256}) {
    for (int i = 0; i < 3; ++i) slots_.emplace_back(batch_.make_sequence(), 300);
  }
  // Slot i holds ids first, first + 1, .. and was used at `used`.
  void hold(std::size_t i, int32_t first, int64_t count, uint64_t used) {
    Slot& slot = slots_[i];
    slot.held.resize(static_cast<std::size_t>(count));
    std::iota(slot.held.begin(), slot.held.end(), first);
    slot.used = used;
    if (count == 0) return;
    const BatchPart part{slot.sequence.get(), slot.held, LogitsOf::kNone};
    batch_.step({&part, 1});
  }
  static std::vector<int32_t> prompt(int32_t first, int64_t count) {
    std::vector<int32_t> ids(static_cast<std::size_t>(count));
    std::iota(ids.begin(), ids.end(), first);
    return ids;
  }
  void expect(const SlotChoice& choice, int slot, int from, int64_t common) {
    EXPECT_EQ(choice.slot, slot < 0 ? nullptr : &slots_[static_cast<std::size_t>(slot)]);
    EXPECT_EQ(choice.from, from < 0 ? nullptr : &slots_[static_cast<std::size_t>(from)]);
    EXPECT_EQ(choice.common, common);
  }

  Batch batch_;
  std::vector<Slot> slots_;
};

TEST_F(Choosing, WhatContinuesASlotTakesItInPlace) {
  hold(0, 10, 40, 5);
  hold(1, 100, 40, 3);
  hold(2, 10, 30, 4);
  expect(choose_slot(slots_, prompt(10, 60), true), 0, 0, 40);
  // The last token of a prompt is read in any case.
  expect(choose_slot(slots_, prompt(10, 40), true), 0, 0, 39);
}

TEST_F(Choosing, AnotherBranchTakesTheOldestSlotAndACopy) {
  hold(0, 10, 100, 5);
  hold(1, 200, 40, 3);
  hold(2, 250, 30, 4);
  auto ids = prompt(10, 45);
  ids.resize(30);
  ids.push_back(7);
  ids.push_back(8);
  expect(choose_slot(slots_, ids, true), 1, 0, 30);
  ids.resize(8);  // too little to be worth a copy
  ids.push_back(5);
  expect(choose_slot(slots_, ids, true), 1, -1, 0);
  expect(choose_slot(slots_, prompt(10, 100), false), 1, -1, 0);
}

TEST_F(Choosing, BusySlotsGiveCopiesAndAreNotTaken) {
  hold(0, 10, 40, 1);
  hold(1, 100, 40, 2);
  hold(2, 200, 40, 3);
  slots_[0].active.emplace();
  slots_[0].active->history = prompt(10, 45);  // 5 of them not read yet
  expect(choose_slot(slots_, prompt(10, 60), true), 1, 0, 40);
  slots_[1].active.emplace();
  slots_[2].active.emplace();
  slots_[1].active->history = prompt(100, 40);
  slots_[2].active->history = prompt(200, 40);
  expect(choose_slot(slots_, prompt(10, 60), true), -1, -1, 0);
}

TEST(ShareRows, EvenlyAndAllOfThem) {
  EXPECT_EQ(share_rows({1000}, 64), (std::vector<int64_t>{64}));
  EXPECT_EQ(share_rows({1000, 1000}, 64), (std::vector<int64_t>{32, 32}));
  EXPECT_EQ(share_rows({10, 1000}, 64), (std::vector<int64_t>{10, 54}));
  EXPECT_EQ(share_rows({3, 4, 5}, 64), (std::vector<int64_t>{3, 4, 5}));
  EXPECT_EQ(share_rows({9, 9, 9, 9, 9}, 3), (std::vector<int64_t>{1, 1, 1, 0, 0}));
  EXPECT_EQ(share_rows({}, 64), (std::vector<int64_t>{}));
  for (const int64_t rows : {1, 7, 64})
    for (const int64_t n : {1, 3, 17}) {
      const std::vector<int64_t> left(static_cast<std::size_t>(n), 100);
      const auto share = share_rows(left, rows);
      EXPECT_EQ(std::accumulate(share.begin(), share.end(), int64_t{0}), rows);
      EXPECT_LE(*std::max_element(share.begin(), share.end()) -
                    *std::min_element(share.begin(), share.end()),
                rows % n == 0 ? 0 : rows % n + 1);
    }
}

TEST(Logprobs, AreTheLogSoftmax) {
  std::vector<float> logits(300);
  for (std::size_t i = 0; i < logits.size(); ++i)
    logits[i] = static_cast<float>(12 * (uniform(3, i) - 0.5));
  logits[77] = logits[12] = 9;  // a tie at the top
  std::vector<float> blocks(static_cast<std::size_t>(logit_blocks(300)));
  find_block_max(logits, blocks.data());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  for (const int top : {0, 1, 5, 20, 300}) {
    const TokenLogprob got = logprob_of(logits, blocks, 77, top);
    EXPECT_NEAR(got.logprob, 9 - std::log(sum), 1e-6);
    ASSERT_EQ(std::ssize(got.top), top);
    if (top > 0) {
      EXPECT_EQ(got.top[0].second, got.logprob) << "the same bits";
    }
    if (top > 1) {
      EXPECT_EQ(got.top[0].first, 12) << "ties by id";
      EXPECT_EQ(got.top[1].first, 77);
    }
    for (std::size_t i = 1; i < got.top.size(); ++i)
      EXPECT_GE(got.top[i - 1].second, got.top[i].second);
    // None of the others is larger than the last.
    if (top != 20) continue;
    EXPECT_EQ(std::count_if(logits.begin(), logits.end(),
                            [&](float x) { return x - std::log(sum) > got.top[19].second + 1e-6; }),
              19);
  }
}

}  // namespace
}  // namespace crumb::serve
