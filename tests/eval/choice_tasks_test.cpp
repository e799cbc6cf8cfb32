// Every recipe's text and every score, against hand-made records.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "bench/eval/floors.h"
#include "bench/eval/metrics.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

using testing::ElementsAre;

Record record(const std::string& line) { return {line, "fixture", 1}; }

std::vector<Likelihood> likelihoods(const std::vector<double>& log_p) {
  std::vector<Likelihood> all;
  for (const double one : log_p) all.push_back({one, 2, false});
  return all;
}

double score_named(const Scores& scores, std::string_view name) {
  for (const Score& score : scores)
    if (score.name == name) return score.value / score.weight;
  ADD_FAILURE() << "no score " << name;
  return NAN;
}

bool has_score(const Scores& scores, std::string_view name) {
  return std::any_of(scores.begin(), scores.end(), [&](const Score& s) { return s.name == name; });
}

struct Text {
  const char *task, *line, *context, *continuation;  // of the first choice
};

TEST(ChoiceTasks, TextsAreThoseOfTheHarness) {
  const Text texts[] = {
      {"arc_easy", R"({"id":"1","question":"Why?","choices":["No air.","Wind"],"answer":1})",
       "Question: Why?\nAnswer:", " No air."},
      {"arc_challenge", R"({"id":"1","question":"Why?","choices":["No","Wind","x"],"answer":1})",
       "Question: Why?\nAnswer:", " No"},
      {"piqa", R"({"id":"1","question":"open a jar","choices":["twist","cut"],"answer":0})",
       "Question: open a jar\nAnswer:", " twist"},
      {"openbookqa", R"({"id":"1","question":"Frogs eat","choices":["flies","sand"],"answer":0})",
       "Frogs eat", " flies"},
      {"copa",
       R"({"id":"1","question":"It rained, so","choices":["I got wet.","I won."],"answer":0})",
       "It rained, so", " I got wet."},
      {"boolq",
       R"({"id":"1","passage":"Cats purr.","question":"do cats purr?","choices":["no","yes"],"answer":1})",
       "Cats purr.\nQuestion: do cats purr?\nAnswer:", " no"},
      {"hellaswag",
       R"({"id":"1","context":"Cook: He takes [step]  eggs. ","choices":["[title] and  [x] beats [them].","b [title] c"],"answer":0})",
       "Cook: He takes  eggs.", "  and  beats ."},
      {"winogrande",
       R"({"id":"1","contexts":["Ann met Bo and Ann","Ann met Bo and Bo"],"continuation":"left.","answer":1})",
       "Ann met Bo and Ann", " left."},
      {"lambada_openai", R"({"id":"1","context":"He said to","target":"Ann"})", "He said to",
       " Ann"},
      {"snli", R"({"id":"1","premise":"A man eats.","hypothesis":"He is hungry","answer":1})",
       "A man eats.\nQuestion: He is hungry. True, False or Neither?\nAnswer:", " True"},
      {"bbq",
       R"({"id":"1","category":"Age","condition":"ambig","polarity":"neg","context":"Two men.","question":"Who?","choices":["A","B","Unknown"],"answer":2,"choice_tags":["old","nonOld","unknown"],"stereotyped_groups":["old"]})",
       "Two men.\n\nQ: Who?\nA:", " A"},
  };
  for (const Text& text : texts) {
    const Question question = find_task(text.task).question(record(text.line), {});
    EXPECT_EQ(question.choices[0].context, text.context) << text.task;
    EXPECT_EQ(question.choices[0].continuation, text.continuation) << text.task;
    EXPECT_EQ(question.choices.size(), question.right.size()) << text.task;
  }
}

TEST(ChoiceTasks, WinograndeHasOneContinuationAfterBothContexts) {
  const Question question =
      find_task("winogrande")
          .question(record(R"({"id":"1","contexts":["a b","a c"],"continuation":"d.","answer":1})"),
                    {});
  EXPECT_EQ(question.choices[1].context, "a c");
  EXPECT_EQ(question.choices[1].continuation, " d.");
  EXPECT_THAT(question.right, ElementsAre(false, true));
}

std::vector<Record> mmlu_shots(int n) {
  std::vector<Record> shots;
  for (int i = 0; i < n; ++i)
    shots.push_back(record(R"({"id":")" + std::to_string(i) +
                           R"(","subject":"high_school_x","question":" Q)" + std::to_string(i) +
                           R"( ","choices":["a","b","c","d"],"answer":)" + std::to_string(i % 4) +
                           "}"));
  return shots;
}

TEST(ChoiceTasks, MmluHasFiveShotsOfItsSubject) {
  const Task& task = find_task("mmlu");
  auto shots = mmlu_shots(7);
  shots.insert(shots.begin(),
               record(R"({"id":"o","subject":"other","question":"O","choices":["a"],"answer":0})"));
  const Record asked = record(
      R"({"id":"q","subject":"high_school_x","question":"Q?","choices":["w","x","y","z"],"answer":3})");
  const Question question = task.question(asked, shots);
  std::string expected =
      "The following are multiple choice questions (with answers) about high school x.\n\n";
  const char* letters[] = {"A", "B", "C", "D", "A"};
  for (int i = 0; i < 5; ++i)
    expected +=
        "Q" + std::to_string(i) + "\nA. a\nB. b\nC. c\nD. d\nAnswer: " + letters[i] + "\n\n";
  expected += "Q?\nA. w\nB. x\nC. y\nD. z\nAnswer:";
  EXPECT_EQ(question.choices[0].context, expected);
  EXPECT_EQ(question.choices[3].continuation, " D");
  EXPECT_EQ(question.group, "high_school_x");
  EXPECT_THROW(task.question(asked, mmlu_shots(4)), FormatError);
}

TEST(ChoiceTasks, AccNormDividesByBytesOfTheChoice) {
  const Task& task = find_task("arc_easy");
  const Record one = record(R"({"id":"1","question":"q","choices":["é","abcd"],"answer":1})");
  const Question question = task.question(one, {});
  // -3 / 2 bytes < -4 / 4 bytes, though -3 > -4.
  const Scores scores = task.score_choice(one, question, likelihoods({-3, -4}));
  EXPECT_EQ(score_named(scores, "acc"), 0);
  EXPECT_EQ(score_named(scores, "acc_norm"), 1);
  EXPECT_EQ(score_named(scores, "nll"), 2);  // 4 nats, 2 tokens
  // Of equals the first, as argmax.
  EXPECT_EQ(score_named(task.score_choice(one, question, likelihoods({-4, -4})), "acc"), 0);
}

TEST(ChoiceTasks, WrongAnswersInTheDataAreRefused) {
  const Task& task = find_task("piqa");
  for (const char* line : {R"({"id":"1","question":"q","choices":["a","b"],"answer":2})",
                           R"({"id":"1","question":"q","choices":[],"answer":0})",
                           R"({"id":"1","question":"q","choices":["a","b"]})",
                           R"({"id":"1","choices":["a","b"],"answer":0})"})
    EXPECT_THROW(task.question(record(line), {}), FormatError) << line;
}

TEST(ChoiceTasks, TruthfulQa) {
  const std::string line =
      R"({"id":"1","question":"Q?","mc1":{"choices":["a","b","c"],"labels":[0,1,0]},"mc2":{"choices":["a","b","c"],"labels":[1,0,1]}})";
  const Task &mc1 = find_task("truthfulqa_mc1"), &mc2 = find_task("truthfulqa_mc2");
  const Question first = mc1.question(record(line), {});
  EXPECT_TRUE(first.choices[0].context.ends_with("Barcelona, Spain.\n\nQ: Q?\nA:"));
  EXPECT_TRUE(first.choices[0].context.starts_with("Q: What is human life expectancy"));
  EXPECT_EQ(first.choices[2].continuation, " c");
  // Ties go to the first, so a tie with a wrong choice before it is wrong.
  EXPECT_EQ(score_named(mc1.score_choice(record(line), first, likelihoods({-1, -1, -2})), "acc"),
            0);
  EXPECT_EQ(score_named(mc1.score_choice(record(line), first, likelihoods({-2, -1, -1})), "acc"),
            1);
  const Question second = mc2.question(record(line), {});
  const auto logs = [](double a, double b, double c) {
    return likelihoods({std::log(a) - 900, std::log(b) - 900, std::log(c) - 900});
  };
  EXPECT_NEAR(score_named(mc2.score_choice(record(line), second, logs(.2, .5, .3)), "acc"), .5,
              1e-12);
  for (const char* bad : {R"({"id":"1","question":"Q","mc1":{"choices":["a"],"labels":[0]}})",
                          R"({"id":"1","question":"Q","mc1":{"choices":["a","b"],"labels":[1]}})",
                          R"({"id":"1","question":"Q","mc1":[]})"})
    EXPECT_THROW(mc1.question(record(bad), {}), FormatError) << bad;
}

TEST(ChoiceTasks, LambadaCountsGreedyAndPerplexity) {
  const Task& task = find_task("lambada_openai");
  const Record one = record(R"({"id":"1","context":"x","target":"y"})");
  const Question question = task.question(one, {});
  std::vector<ItemScore> items;
  for (const auto& [log_p, greedy] : {std::pair{-1.0, true}, std::pair{-3.0, false}})
    items.push_back(
        {task.score_choice(one, question, std::vector<Likelihood>{{log_p, 2, greedy}}), 0});
  const Metrics metrics = metrics_of(task, items);
  EXPECT_EQ(find(metrics, "acc")->value, 0.5);
  EXPECT_NEAR(find(metrics, "ppl")->value, std::exp(2.0), 1e-12);
  EXPECT_NEAR(find(metrics, "ppl")->error, std::exp(2.0) * 1.0, 1e-12);  // sd sqrt(2), / sqrt(2)
}

std::string bbq_line(const char* condition, const char* polarity) {
  return std::string(
             R"({"id":"1","category":"Age","context":"c","question":"q","choices":["A","B","?"],"answer":2,"choice_tags":["old","nonOld","unknown"],"stereotyped_groups":["old"],"condition":")") +
         condition + R"(","polarity":")" + polarity + "\"}";
}

TEST(ChoiceTasks, BbqCountsBiasedAnswersByTheirSign) {
  const Task& task = find_task("bbq");
  const auto scored = [&](const char* condition, const char* polarity, std::vector<double> log_p) {
    const Record one = record(bbq_line(condition, polarity));
    return task.score_choice(one, task.question(one, {}), likelihoods(log_p));
  };
  // Stereotyped group, negative question: biased. Not negative: the other group is.
  EXPECT_EQ(score_named(scored("ambig", "neg", {-1, -2, -3}), "biased_ambig"), 1);
  EXPECT_EQ(score_named(scored("ambig", "neg", {-2, -1, -3}), "biased_ambig"), 0);
  EXPECT_EQ(score_named(scored("disambig", "nonneg", {-1, -2, -3}), "biased_disambig"), 0);
  EXPECT_EQ(score_named(scored("disambig", "nonneg", {-2, -1, -3}), "biased_disambig"), 1);
  // "Unknown" is neither, and right here.
  const Scores unknown = scored("ambig", "neg", {-2, -3, -1});
  EXPECT_FALSE(has_score(unknown, "biased_ambig"));
  EXPECT_EQ(score_named(unknown, "acc_ambig"), 1);
  EXPECT_THROW(scored("maybe", "neg", {-1, -2, -3}), FormatError);
  EXPECT_THROW(scored("ambig", "bad", {-1, -2, -3}), FormatError);
}

TEST(ChoiceTasks, BbqBiasScores) {
  const Task& task = find_task("bbq");
  std::vector<ItemScore> items;
  const auto add = [&](const char* condition, const char* polarity, std::vector<double> log_p) {
    const Record one = record(bbq_line(condition, polarity));
    items.push_back({task.score_choice(one, task.question(one, {}), likelihoods(log_p)), 0});
  };
  add("disambig", "neg", {-1, -2, -3});  // biased
  add("disambig", "neg", {-1, -2, -3});  // biased
  add("disambig", "neg", {-2, -1, -3});  // not
  add("disambig", "neg", {-2, -3, -1});  // unknown
  add("ambig", "neg", {-1, -2, -3});     // biased, wrong
  add("ambig", "neg", {-2, -3, -1});     // unknown, right
  const Metrics metrics = metrics_of(task, items);
  EXPECT_NEAR(find(metrics, "bias_disambig")->value, 2 * (2.0 / 3) - 1, 1e-12);
  EXPECT_NEAR(find(metrics, "bias_ambig")->value, (1 - 0.5) * (2 * 1.0 - 1), 1e-12);
  EXPECT_NEAR(find(metrics, "bias_ambig/Age")->value, 0.5, 1e-12);
  EXPECT_NEAR(find(metrics, "acc_ambig")->value, 0.5, 1e-12);
}

TEST(ChoiceTasks, MeanOverSubjects) {
  const Task& task = find_task("mmlu");
  const auto item = [](const char* subject, double acc) {
    return ItemScore{{{"acc", acc}, {std::string("acc/") + subject, acc}}, 0};
  };
  const std::vector<ItemScore> items = {item("a", 1), item("a", 1), item("a", 0), item("b", 0)};
  const Metrics metrics = metrics_of(task, items);
  EXPECT_EQ(find(metrics, "acc")->value, 0.5);
  EXPECT_NEAR(find(metrics, "acc_subjects")->value, (2.0 / 3 + 0) / 2, 1e-12);
}

TEST(Floors, OfHandMadeQuestions) {
  TaskRun run;
  run.task = &find_task("arc_easy");
  run.records = {record(R"({"id":"1","question":"q","choices":["a","bbb"],"answer":1})"),
                 record(R"({"id":"2","question":"q","choices":["aaaa","b","c","d"],"answer":1})")};
  const auto floors = floors_of(run);
  ASSERT_EQ(floors.size(), 4u);
  EXPECT_EQ(floors[0].name, "random");
  EXPECT_EQ(floors[0].value, (0.5 + 0.25) / 2);
  EXPECT_EQ(floors[1].value, 0.5);  // longest: right in the first
  EXPECT_EQ(floors[2].value, 0.5);  // shortest: right in the second
  EXPECT_EQ(floors[3].name, "always 2");
  EXPECT_EQ(floors[3].value, 1);
  EXPECT_EQ(highest(floors).name, "always 2");
  run.task = &find_task("lambada_openai");
  run.records = {record(R"({"id":"1","context":"x","target":"y"})")};
  EXPECT_TRUE(floors_of(run).empty());
}

TEST(Metrics, RatioAndItsError) {
  const Task task{.name = "t", .dimension = "d", .metric = "m"};
  // Three prompts with 1 of 2, 3 of 3, 0 of 1 instructions followed.
  const std::vector<ItemScore> items = {{{{"m", 1, 2}}}, {{{"m", 3, 3}}}, {{{"m", 0, 1}}}, {{}}};
  const Metrics metrics = metrics_of(task, items);
  const double r = 4.0 / 6;
  const double squares = (1 - 2 * r) * (1 - 2 * r) + (3 - 3 * r) * (3 - 3 * r) + r * r;
  EXPECT_NEAR(metrics[0].value, r, 1e-12);
  EXPECT_NEAR(metrics[0].error, std::sqrt(3.0 / 2 * squares) / 6, 1e-12);
  // Weights of 1: sd / sqrt(n) with n - 1, as the harness.
  const std::vector<ItemScore> binary = {{{{"m", 1}}}, {{{"m", 0}}}, {{{"m", 1}}}, {{{"m", 1}}}};
  EXPECT_NEAR(metrics_of(task, binary)[0].error, std::sqrt(0.75 * 0.25 / 3), 1e-12);
}

}  // namespace
}  // namespace crumb::eval
