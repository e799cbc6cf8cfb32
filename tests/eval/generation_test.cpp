#include "bench/eval/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/eval/metrics.h"
#include "engine/chat.h"
#include "engine/progress.h"
#include "models/errors.h"
#include "tests/eval/tiny_engine.h"

namespace crumb::eval {
namespace {

using kernels::KvType;

GenerationPlan raw(const std::string& text, int64_t tokens) {
  GenerationPlan plan;
  plan.turns = {text};
  plan.chat = false;
  plan.max_tokens = tokens;
  return plan;
}

// The likeliest token again and again, each from an empty cache.
std::vector<int32_t> greedy_slowly(const Engine& engine, std::vector<int32_t> ids, int64_t n) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < n; ++i) {
    const auto logits = logits_one_by_one(engine, ids, KvType::kF32).back();
    const auto top = std::max_element(logits.begin(), logits.end()) - logits.begin();
    out.push_back(static_cast<int32_t>(top));
    ids.push_back(static_cast<int32_t>(top));
    const auto& stop = engine.stop_tokens();
    if (std::find(stop.begin(), stop.end(), out.back()) != stop.end()) break;
  }
  return out;
}

TEST(AnswerWriter, GreedyAndIndependentOfWhatWasAskedBefore) {
  const auto engine = tiny_engine();
  AnswerWriter writer(engine, KvType::kF32);
  for (const std::string& prompt :
       {std::string("abc def"), std::string("abc dxx"), std::string("abc def"), some_text(50)}) {
    const auto answers = writer.answer(raw(prompt, 12), {});
    ASSERT_EQ(answers.size(), 1u);
    const auto ids = greedy_slowly(*engine, engine->tokenizer().encode(prompt, false), 12);
    EXPECT_EQ(answers[0].tokens, std::ssize(ids));
    // Halves of characters become U+FFFD in the answer: compare where there are none.
    const std::string text = engine->tokenizer().decode(ids, false);
    if (answers[0].text.find("\xef\xbf\xbd") == std::string::npos) {
      EXPECT_EQ(answers[0].text, text);
    }
  }
  EXPECT_GT(writer.tokens_reused(), 0);
}

TEST(AnswerWriter, StopTextEndsTheAnswer) {
  const auto engine = tiny_engine();
  AnswerWriter writer(engine, KvType::kF32);
  const Answer whole = writer.answer(raw("abc", 24), {})[0];
  ASSERT_GT(whole.text.size(), 4u);
  GenerationPlan plan = raw("abc", 24);
  plan.stop = {whole.text.substr(2, 2)};
  const Answer cut = writer.answer(plan, {})[0];
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(plan.stop[0])));
  EXPECT_EQ(cut.reason, FinishReason::kStop);
  EXPECT_LE(cut.tokens, whole.tokens);
}

TEST(AnswerWriter, TurnsOfAChatSeeEachOther) {
  const auto engine = tiny_engine();
  if (engine->chat_template().empty()) GTEST_SKIP() << "the tiny model has no chat template";
  AnswerWriter writer(engine, KvType::kF32);
  GenerationPlan plan;
  plan.turns = {"hello", "and then"};
  plan.max_tokens = 8;
  const auto answers = writer.answer(plan, {});
  ASSERT_EQ(answers.size(), 2u);
  Chat chat(engine, {0, KvType::kF32, 64});
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = 8;
  EXPECT_EQ(chat.say("hello", options, {}).text, answers[0].text);
  EXPECT_EQ(chat.say("and then", options, {}).text, answers[1].text);
  EXPECT_EQ(writer.answer(plan, {}), answers);
}

// Answers written side by side, of all lengths, chats and continuations mixed, are those written
// one by one.
TEST(AnswerWriter, SideBySideIsOneByOne) {
  const auto engine = tiny_engine();
  std::vector<GenerationPlan> plans;
  for (int i = 0; i < 23; ++i) {
    const auto n = static_cast<std::size_t>(i);
    // Long common beginnings, which a later prompt waits for, and short ones.
    GenerationPlan plan = raw(some_text(i % 4 == 0 ? 100 : 3) + some_text(n % 7), 3 + (i * 7) % 20);
    if (i % 5 == 1) {
      plan.turns = {"ab" + some_text(n), "and then"};
      plan.chat = true;
    }
    if (i % 3 == 0) plan.stop = {"a", "xyz"};
    plans.push_back(plan);
  }
  std::vector<const GenerationPlan*> all;
  std::vector<std::vector<Answer>> expected;
  for (const GenerationPlan& plan : plans) {
    all.push_back(&plan);
    expected.push_back(AnswerWriter(engine, KvType::kI8, 1).answer(plan, {}));
  }
  for (const int64_t side_by_side : {1, 3, 16}) {
    AnswerWriter writer(engine, KvType::kI8, side_by_side);
    std::vector<bool> done(plans.size());
    writer.answer(all, {}, [&](std::size_t i, std::vector<Answer> answers) {
      EXPECT_FALSE(done[i]);
      done[i] = true;
      EXPECT_EQ(answers, expected[i]) << i;
    });
    EXPECT_EQ(std::count(done.begin(), done.end(), true), std::ssize(plans));
    EXPECT_GT(writer.tokens_reused(), 100);
  }
}

TEST(AnswerWriter, TheContextEndsAnAnswer) {
  const auto engine = tiny_engine();
  const auto room = static_cast<std::size_t>(engine->config().context);
  std::string text = some_text(4 * room);
  while (engine->tokenizer().encode(text, false).size() > room - 5) text.pop_back();
  const int64_t left = static_cast<int64_t>(room - engine->tokenizer().encode(text, false).size());
  const Answer answer = AnswerWriter(engine, KvType::kI8).answer(raw(text, 100), {})[0];
  if (answer.reason != FinishReason::kStop) {
    EXPECT_EQ(answer.reason, FinishReason::kContext);
    EXPECT_EQ(answer.tokens, left + 1);
  }
  EXPECT_EQ(AnswerWriter(engine, KvType::kI8).answer(raw("abc", 0), {})[0].text, "");
  EXPECT_THROW(AnswerWriter(engine, KvType::kI8).answer(raw(some_text(8 * room), 5), {}), Error);
}

TEST(AnswerWriter, StopsWhenAsked) {
  AnswerWriter writer(tiny_engine(), KvType::kF32);
  int calls = 0;
  EXPECT_THROW(writer.answer(raw("abc", 50), [&] { return ++calls < 5; }), Interrupted);
  EXPECT_THROW(writer.answer(raw("", 5), {}), FormatError);
}

// An answer that was ended leaves nothing wrong behind.
TEST(AnswerWriter, GoesOnAfterAnInterruption) {
  const auto engine = tiny_engine();
  AnswerWriter writer(engine, KvType::kF32, 4);
  int calls = 0;
  EXPECT_THROW(writer.answer(raw("abc def", 30), [&] { return ++calls < 9; }), Interrupted);
  EXPECT_EQ(writer.answer(raw("abc def", 30), {}),
            AnswerWriter(engine, KvType::kF32).answer(raw("abc def", 30), {}));
}

TEST(Looped, LastFortyCharactersThreeTimes) {
  const std::string forty = "0123456789abcdefghijklmnopqrstuvwxyz+-*/";
  ASSERT_EQ(forty.size(), 40u);
  EXPECT_FALSE(looped(""));
  EXPECT_FALSE(looped(forty + forty + forty));  // 120 characters are not over 120
  EXPECT_TRUE(looped("x" + forty + forty + forty));
  EXPECT_FALSE(looped("x" + forty + some_text(100) + forty));
  EXPECT_TRUE(looped(std::string(121, 'a')));  // overlapping ones count
  // Characters, not bytes: 61 of two bytes are 122 bytes.
  std::string accents;
  for (int i = 0; i < 61; ++i) accents += "é";
  EXPECT_FALSE(looped(accents));
  EXPECT_TRUE(looped(accents + accents));
}

TEST(Scores, FrameworkAddsLoopsLimitsAndTokens) {
  static const Task task{
      .name = "t",
      .dimension = "d",
      .kind = TaskKind::kGenerate,
      .metric = "m",
      .score_answer = [](const Record&, std::span<const Answer> answers,
                         const ScoreContext& context) {
        Scores scores{{"m", answers[0].text == "right" ? 1.0 : 0.0}};
        if (!context.reference.empty())
          scores.push_back({"same", context.reference[0] == answers[0] ? 1.0 : 0.0});
        return scores;
      }};
  TaskRun run;
  run.task = &task;
  for (const char* id : {"a", "b"})
    run.records.emplace_back(std::string(R"({"id":")") + id + "\"}", "f", 1);
  run.results = {{"a", {}, {}, {{"right", FinishReason::kStop, 3}}},
                 {"b", {}, {}, {{std::string(200, 'x'), FinishReason::kLength, 5}}}};
  const auto items = score_items(run, &run, false);
  const Metrics metrics = metrics_of(task, items);
  EXPECT_EQ(find(metrics, "m")->value, 0.5);
  EXPECT_EQ(find(metrics, "looped")->value, 0.5);
  EXPECT_EQ(find(metrics, "at_limit")->value, 0.5);
  EXPECT_EQ(find(metrics, "tokens")->value, 4);
  EXPECT_EQ(find(metrics, "same")->value, 1);
  EXPECT_TRUE(value_of(items[0], "m").right());
  EXPECT_FALSE(value_of(items[0], "none").there);
}

}  // namespace
}  // namespace crumb::eval
