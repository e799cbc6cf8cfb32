// Text by a model on the CPU: what is chosen, whose turn comes next, what the rows depend on.
#include "quant/train/text_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/session.h"
#include "models/errors.h"
#include "models/tiny_model.h"
#include "quant/train/window_source.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t kLength = 40;

std::shared_ptr<const Engine> engine_with(int threads) {
  LoadOptions load;
  load.pin = false;
  load.threads = threads;
  return Engine::from_source(models::tiny_model({}), load);
}

std::vector<int32_t> rows_of(const std::vector<int32_t>& ids, int64_t from, int64_t to) {
  return {ids.begin() + from * kLength, ids.begin() + to * kLength};
}

TEST(TextWriter, GreedyTextIsTheForwardPassesArgmax) {
  const auto engine = engine_with(1);
  const TextScript script{{{5, 9, 77}, {200, 3}, {17}}, {}, -1};
  const Sampling greedy{0, 0, 1};
  const auto ids = write_text(engine, script, greedy, 0, 3, kLength);
  ASSERT_EQ(std::ssize(ids), 3 * kLength);
  for (int64_t row = 0; row < 3; ++row) {
    const auto text = rows_of(ids, row, row + 1);
    const auto prefix = std::ssize(
        script.prefixes[static_cast<std::size_t>(start_row(script, greedy, row).prefix)]);
    SessionOptions options;
    options.kv = kernels::KvType::kF32;
    options.context = kLength;
    const auto session = engine->make_session(options);
    session->forward_all(text, [&](int64_t t, std::span<const float> logits) {
      if (t + 1 < prefix || t + 1 == kLength) return;
      const auto best = std::ranges::max_element(logits) - logits.begin();
      EXPECT_EQ(text[static_cast<std::size_t>(t + 1)], best) << row << ' ' << t;
    });
  }
}

TEST(TextWriter, RowsDependOnSeedAndNumberOnly) {
  const TextScript script{{{1, 2, 3}, {4}}, {}, -1};
  const Sampling sampling{1.2f, 0.01f, 7};
  const auto engine = engine_with(1);
  const auto all = write_text(engine, script, sampling, 0, kRowsAtOnce + 5, kLength);
  EXPECT_EQ(write_text(engine_with(2), script, sampling, 0, kRowsAtOnce + 5, kLength), all);
  EXPECT_EQ(write_text(engine, script, sampling, 20, 9, kLength), rows_of(all, 20, 29));
  EXPECT_NE(rows_of(all, 0, 1), rows_of(all, 1, 2));
  Sampling other = sampling;
  other.seed = 8;
  EXPECT_NE(write_text(engine, script, other, 0, 9, kLength), rows_of(all, 0, 9));
}

TEST(TextWriter, HeadersFollowTheEndOfATurnByTurns) {
  const TextScript script{{{1, 2}}, {{31, 32, 33}, {34, 35}}, 2};
  RowState state = start_row(script, {}, 0);
  const std::vector<float> end = {0, 0, 9}, other = {9, 0, 0};  // greedy: token 2, token 0
  const auto next = [&](const std::vector<float>& logits, int64_t t) {
    return next_token(script, {0, 0, 1}, logits, 0, t, &state);
  };
  EXPECT_EQ(next(other, 0), 2) << "of the prefix: no end of a turn";
  std::vector<int32_t> text;
  for (int64_t t = 1; t < 11; ++t) text.push_back(next(t % 5 == 1 ? end : other, t));
  EXPECT_EQ(text, (std::vector<int32_t>{2, 31, 32, 33, 0, 2, 34, 35, 0, 0}));
}

TEST(TextWriter, TokensAreDrawnAsTheirShares) {
  const std::vector<double> shares = {0.5, 0.3, 0.19, 0.01};
  std::vector<float> logits;
  for (const double p : shares) logits.push_back(static_cast<float>(std::log(p)));
  const TextScript script{{{0}}, {}, -1};
  constexpr int64_t kDraws = 20000;
  std::vector<int64_t> counts(4), most(4);
  RowState state;
  for (int64_t row = 0; row < kDraws; ++row) {
    ++counts[static_cast<std::size_t>(next_token(script, {1, 0, 3}, logits, row, 0, &state))];
    ++most[static_cast<std::size_t>(next_token(script, {1, 0.05f, 3}, logits, row, 0, &state))];
  }
  for (std::size_t v = 0; v < 4; ++v)
    EXPECT_NEAR(static_cast<double>(counts[v]) / kDraws, shares[v], 0.015) << v;
  EXPECT_EQ(most[3], 0) << "less than a twentieth of the likeliest";
}

TEST(TextWriter, RefusesScriptsAndStops) {
  for (const char* bad : {"", "[]", "{}", R"({"prefixes": []})", R"({"prefixes": [[]]})",
                          R"({"prefixes": [[300]]})", R"({"prefixes": [[-1]]})",
                          R"({"prefixes": [["a"]]})", R"({"prefixes": [[1]], "headers": [[]]})"})
    EXPECT_THROW(script_from_json(bad, 300), Error) << bad;
  const auto script = script_from_json(R"({"prefixes": [[1, 2]], "headers": [[3]], "end": 4})", 5);
  EXPECT_EQ(script.end, 4);
  const auto engine = engine_with(1);
  const TextScript longer{{std::vector<int32_t>(kLength + 1, 1)}, {}, -1};
  EXPECT_THROW(write_text(engine, longer, {}, 0, 1, kLength), Error);
  EXPECT_THROW(
      write_text(engine, script, {}, 0, 4, kLength, [](const Progress& p) { return p.done < 10; }),
      Interrupted);
}

// Row r is filled with r; text window w with -w.
class Windows : public testing::Test {
 protected:
  Windows() : data_(4) {
    std::vector<int32_t> ids;
    for (int32_t w = 1; w <= 6; ++w) ids.insert(ids.end(), 4, -w);
    data_.add(ids);
    recipe_.window = 4;
    recipe_.batch = 3;
    recipe_.accumulate = 2;
    recipe_.generate = {"script", 0.4, 5, 1, 0.02};
  }
  WindowSource source() {
    return {recipe_, data_, [this](int64_t first, int64_t rows) {
              ++writes_;
              EXPECT_EQ(first % recipe_.generate->rows, 0);
              std::vector<int32_t> ids;
              for (int64_t r = first; r < first + rows; ++r)
                ids.insert(ids.end(), 4, static_cast<int32_t>(r));
              return ids;
            }};
  }
  TrainRecipe recipe_;
  TokenData data_;
  int writes_ = 0;
};

TEST_F(Windows, RowsOfTheTeacherAreUsedOnceTheTextInTurns) {
  EXPECT_EQ(recipe_.generated_windows(), 3);  // of 6, .4 rounded up
  WindowSource windows = source();
  std::vector<int32_t> made, read;
  for (int64_t step = 0; step < 10; ++step) {
    const auto ids = windows.next(step * 6);
    ASSERT_EQ(ids.size(), 24u);
    for (std::size_t w = 0; w < 6; ++w) (w < 3 ? read : made).push_back(ids[4 * w]);
    EXPECT_EQ(ids, source().next(step * 6)) << "a run that begins here";
  }
  for (std::size_t i = 0; i < made.size(); ++i) EXPECT_EQ(made[i], static_cast<int32_t>(i));
  for (std::size_t epoch = 0; epoch < 5; ++epoch) {
    std::vector<int32_t> once(read.begin() + static_cast<std::ptrdiff_t>(6 * epoch),
                              read.begin() + static_cast<std::ptrdiff_t>(6 * epoch + 6));
    std::ranges::sort(once);
    EXPECT_EQ(once, (std::vector<int32_t>{-6, -5, -4, -3, -2, -1}));
  }
}

TEST_F(Windows, RowsAreWrittenOnce) {
  recipe_.generate->share = 1;
  WindowSource windows = source();
  for (int64_t step = 0; step < 5; ++step) windows.next(step * 6);
  EXPECT_EQ(writes_, 6);  // 30 rows, 5 at a time
}

}  // namespace
}  // namespace crumb::quant::train
