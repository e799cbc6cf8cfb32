// Data that the user brings: the documented forms (tests/eval/user_data), their prompts and scores.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "bench/eval/metrics.h"
#include "bench/eval/task.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

std::vector<Record> fixture(const std::string& name) {
  return read_records(CRUMB_USER_DATA "/" + name).records;
}

std::map<std::string, double> scores(const char* task, const Record& record,
                                     const std::string& answer) {
  const std::vector<Answer> answers = {{answer, FinishReason::kStop, 1}};
  std::map<std::string, double> values;
  for (const Score& score : find_task(task).score_answer(record, answers, {}))
    values[score.name] = score.weight > 0 ? score.value / score.weight : -1;
  return values;
}

std::string prompt(const char* task, const Record& record) {
  return find_task(task).plan(record, {}).turns.front();
}

TEST(UserData, CEvalHasFiveShotsAndAsksForALetter) {
  const auto records = fixture("ceval/dev.jsonl"), shots = fixture("ceval/fewshot.jsonl");
  const Question question = find_task("ceval").question(records[1], shots);
  const std::string& context = question.choices[0].context;
  EXPECT_THAT(context, testing::StartsWith(
                           "以下是中国关于常识的单项选择题，请选出其中的正确答案。\n\n"
                           "一周有几天？\nA. 五天\nB. 六天\nC. 七天\nD. 八天\n答案： C\n\n"));
  EXPECT_THAT(context,
              testing::EndsWith("答案： C\n\n蜜蜂有几条腿？\nA. 四条\nB. 六条\nC. 八条\nD. "
                                "十条\n答案："));
  EXPECT_EQ(question.choices[1].continuation, " B");
  EXPECT_THAT(question.right, testing::ElementsAre(false, true, false, false));
  EXPECT_THROW(find_task("ceval").question(records[0], std::span(shots).first(4)), FormatError);
}

TEST(UserData, SnliAsksForOneOfThreeWords) {
  const auto records = fixture("snli/dev.jsonl");
  for (std::size_t i = 0; i < 3; ++i) {
    const Question question = find_task("snli").question(records[i], {});
    EXPECT_TRUE(question.right[i]);
    EXPECT_THAT(question.choices[0].context,
                testing::EndsWith(". True, False or Neither?\nAnswer:"));
  }
}

TEST(UserData, SummariesByRouge) {
  for (const char* task : {"cnn_dailymail", "xsum"}) {
    const auto records = fixture(std::string(task) + "/dev.jsonl");
    EXPECT_THAT(prompt(task, records[0]), testing::EndsWith("\n\n" + records[0].text("article")));
    EXPECT_EQ(scores(task, records[0], records[0].text("summary")).at("rougeL"), 1);
    EXPECT_EQ(scores(task, records[0], "zzz").at("rouge1"), 0);
  }
  // Two of three words, in order: precision 1, recall 2/3.
  const Record three(R"({"id":"1","article":"a","summary":"goats are safe"})", "x", 1);
  EXPECT_NEAR(scores("xsum", three, "goats safe").at("rougeL"), 0.8, 1e-12);
}

TEST(UserData, TranslationsByChrfAndBleu) {
  const auto records = fixture("flores/dev.jsonl");
  EXPECT_EQ(prompt("flores", records[0]),
            "English phrase: The cat sleeps on the warm stove.\nGerman phrase:");
  EXPECT_EQ(find_task("flores").plan(records[0], {}).stop, std::vector<std::string>{"\n"});
  const auto right = scores("flores", records[1], records[1].text("target"));
  EXPECT_NEAR(right.at("chrf"), 1, 1e-9);
  EXPECT_NEAR(right.at("bleu"), 1, 1e-9);
  EXPECT_NEAR(right.at("chrf/English-French"), 1, 1e-9);
  const auto wrong = scores("flores", records[1], "Nous partirons demain.");
  EXPECT_GT(wrong.at("chrf"), 0.3);
  EXPECT_LT(wrong.at("chrf"), 0.95);
}

TEST(UserData, ConstraintsByLevel) {
  const auto records = fixture("followbench/dev.jsonl");
  EXPECT_EQ(scores("followbench", records[0], "Tea is hot.").at("hsr"), 1);
  const auto half = scores("followbench", records[1], "Tea is hot.");
  EXPECT_EQ(half.at("ssr"), 0.5);
  EXPECT_EQ(half.at("hsr/level_2"), 0);
  const auto unknown = scores("followbench", records[2], "A leaf in water.");
  EXPECT_NEAR(unknown.at("not_scored"), 1.0 / 3, 1e-12);
  EXPECT_EQ(unknown.at("ssr/level_3"), 1);
  EXPECT_FALSE(unknown.contains("hsr"));
  const Record none(R"({"id":"1","level":0,"prompt":"p","instruction_id_list":[],"kwargs":[]})",
                    "x", 1);
  EXPECT_THROW(scores("followbench", none, "a"), FormatError);
}

// Three questions: two levels kept then one not; a level that no program checks; a gap.
TEST(UserData, LevelsKeptInARow) {
  std::vector<Record> records;
  std::vector<ItemScore> items;
  const auto add = [&](const std::string& question, int64_t level, double hsr) {
    records.emplace_back("{\"id\":\"" + question + "/" + std::to_string(level) +
                             "\",\"level\":" + std::to_string(level) + "}",
                         "x", 1);
    items.push_back(hsr < 0 ? ItemScore{} : ItemScore{{{"hsr", hsr}}});
  };
  add("tea", 3, 0);
  add("tea", 1, 1);
  add("tea", 2, 1);
  add("tea", 4, 1);
  add("cups", 1, 1);
  add("cups", 2, -1);
  add("pots", 1, 1);
  add("pots", 3, 1);
  add("milk", 1, 0);
  add("milk", 2, -1);
  const Task& task = find_task("followbench");
  task.across(records, items);
  EXPECT_EQ(value_of(items[1], "csl").value, 2);
  EXPECT_TRUE(value_of(items[8], "csl").there) << "level 1 is not kept: the others do not matter";
  EXPECT_EQ(value_of(items[8], "csl").value, 0);
  for (const std::size_t none : {0, 2, 3, 4, 5, 6, 7, 9})
    EXPECT_FALSE(value_of(items[none], "csl").there) << none;
  EXPECT_EQ(find(metrics_of(task, items), "csl")->value, 1);
  add("milk", 1, 1);
  EXPECT_THROW(task.across(records, items), FormatError);
}

}  // namespace
}  // namespace crumb::eval
