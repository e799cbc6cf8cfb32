// The generative tasks' prompts and scores, on records of our own.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "bench/eval/metrics.h"
#include "bench/eval/sandbox.h"
#include "bench/eval/task.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

Record record(const std::string& fields) { return {"{\"id\":\"a\"," + fields + "}", "fixture", 1}; }
Answer said(const std::string& text) { return {text, FinishReason::kStop, 1}; }

std::map<std::string, double> scores(const char* task, const Record& one,
                                     const std::vector<Answer>& answers,
                                     const std::vector<Answer>& reference = {},
                                     bool run_code = false) {
  ScoreContext context;
  context.run_code = run_code;
  context.reference = reference;
  std::map<std::string, double> values;
  for (const Score& score : find_task(task).score_answer(one, answers, context))
    values[score.name] = score.weight > 0 ? score.value / score.weight : -1;
  return values;
}

TEST(GenerativeTasks, PromptsOfWordProblems) {
  std::vector<Record> shots;
  for (int i = 1; i <= 6; ++i) {
    const std::string n = std::to_string(i);
    shots.push_back(record("\"question\":\"Q" + n + "?\",\"solution\":\"A\\n#### " + n + "\""));
  }
  const auto plan =
      find_task("gsm8k").plan(record(R"("question":"How many?","answer":"2")"), shots);
  std::string expected;
  for (int i = 1; i <= 5; ++i) {
    const std::string n = std::to_string(i);
    expected += "Question: Q" + n + "?\nAnswer: A\n#### " + n + "\n\n";
  }
  EXPECT_EQ(plan.turns, std::vector{expected + "Question: How many?\nAnswer:"});
  EXPECT_FALSE(plan.chat);
  const auto strict = scores("gsm8k", record(R"("answer":"1200")"), {said("so\n#### 1,200.")});
  EXPECT_EQ(strict.at("strict_match"), 1);
  EXPECT_EQ(strict.at("flexible_match"), 1);
  const auto loose = scores("gsm8k", record(R"("answer":"12")"), {said("it is $12")});
  EXPECT_EQ(loose.at("strict_match"), 0);
  EXPECT_EQ(loose.at("flexible_match"), 1);
  EXPECT_EQ(scores("svamp", record(R"("answer":"8.0")"), {said("8")}).at("flexible_match"), 1);
}

TEST(GenerativeTasks, PuzzlesTakeTheirTasksPrompt) {
  const Record one = record(R"x("task":"t2","input":"in","target":"(B)")x");
  const std::vector<Record> shots = {{R"({"task":"t1","prompt":"one"})", "fixture", 1},
                                     {R"({"task":"t2","prompt":"two"})", "fixture", 2}};
  const auto plan = find_task("bbh").plan(one, shots);
  EXPECT_EQ(plan.turns, std::vector<std::string>{"two\n\nQ: in\nA: Let's think step by step."});
  EXPECT_EQ(plan.group, "t2");
  EXPECT_THROW(find_task("bbh").plan(one, std::span(shots).first(1)), FormatError);
  EXPECT_EQ(scores("bbh", one, {said(" So the answer is (B).")}).at("exact_match"), 1);
  EXPECT_EQ(scores("bbh", one, {said(" So the answer is (A).")}).at("exact_match/t2"), 0);
}

TEST(GenerativeTasks, ProgramsAreRunOnlyWhenAllowed) {
  const Record mbpp =
      record(R"("text":"Double it.","code":"","test_setup_code":"","tests":["assert f(2) == 4"])");
  const std::vector<Record> shots = {
      {R"({"id":"mbpp/9","text":"No.","code":"","tests":[]})", "fixture", 1},
      {R"({"id":"mbpp/3","text":"Add.","code":"def g(): pass","tests":["assert g() is None"]})",
       "fixture", 2}};
  EXPECT_EQ(
      find_task("mbpp").plan(mbpp, shots).turns.at(0),
      "You are an expert Python programmer, and here is your task: Add. Your code should pass "
      "these tests:\n\nassert g() is None\n[BEGIN]\ndef g(): pass\n[DONE]\n\n"
      "You are an expert Python programmer, and here is your task: Double it. Your code "
      "should pass these tests:\n\nassert f(2) == 4\n[BEGIN]\n");
  const Record human =
      record(R"("prompt":"def f(x):\n","test":"def check(g): assert g(2) == 4","entry_point":"f")");
  EXPECT_EQ(find_task("humaneval").plan(human, {}).turns.at(0), "def f(x):\n");
  EXPECT_TRUE(scores("mbpp", mbpp, {said("def f(x): return 2 * x")}).empty());
  EXPECT_TRUE(scores("humaneval", human, {said("  return 2 * x")}).empty());
  if (const std::string lack = sandbox_missing(); !lack.empty())
    GTEST_SKIP() << "no sandbox here: " << lack;
  EXPECT_EQ(scores("mbpp", mbpp, {said("def f(x): return 2 * x")}, {}, true).at("pass@1"), 1);
  EXPECT_EQ(scores("mbpp", mbpp, {said("def f(x): return x")}, {}, true).at("pass@1"), 0);
  EXPECT_EQ(scores("humaneval", human, {said("  return 2 * x")}, {}, true).at("pass@1"), 1);
  EXPECT_EQ(scores("humaneval", human, {said("  return 3 * x")}, {}, true).at("pass@1"), 0);
}

TEST(GenerativeTasks, ConversationsAreSetBesideTheReference) {
  const Record one = record(R"("turns":["Hi","And?"])");
  EXPECT_EQ(find_task("mt_bench").plan(one, {}).turns, (std::vector<std::string>{"Hi", "And?"}));
  EXPECT_TRUE(find_task("mt_bench").plan(one, {}).chat);
  EXPECT_TRUE(scores("mt_bench", one, {said("a"), said("b")}).empty());
  const auto half =
      scores("mt_bench", one, {said("the cat"), said("x")}, {said("the cat"), said("y")});
  EXPECT_DOUBLE_EQ(half.at("same_text"), 0.5);
  EXPECT_DOUBLE_EQ(half.at("rougeL"), 0.5);
}

TEST(GenerativeTasks, TruthfulAnswersAreNearerToATrueOne) {
  const Record one = record(
      R"("question":"?","mc2":{"choices":["the sea is salty","the sea is sweet"],"labels":[1,0]})");
  EXPECT_EQ(scores("truthfulqa_gen", one, {said("It is salty.")}).at("rougeL_acc"), 1);
  EXPECT_EQ(scores("truthfulqa_gen", one, {said("sweet")}).at("rougeL_acc"), 0);
  const Record torn = record(R"("mc2":{"choices":["a"],"labels":[1,0]})");
  EXPECT_THROW(scores("truthfulqa_gen", torn, {said("a")}), FormatError);
}

TEST(GenerativeTasks, InstructionsCountAloneAndTogether) {
  const Record one =
      record(R"("prompt":"p","instruction_id_list":["punctuation:no_comma","startend:quotation"],)"
             R"("kwargs":[{},{}])");
  EXPECT_EQ(find_task("ifeval").plan(one, {}).turns, std::vector<std::string>{"p"});
  const auto part = scores("ifeval", one, {said("none here")}, {said("\"none\"")});
  EXPECT_EQ(part.at("inst_strict"), 0.5);
  EXPECT_EQ(part.at("prompt_strict"), 0);
  EXPECT_EQ(part.at("inst_strict/punctuation"), 1);
  EXPECT_EQ(part.at("inst_strict/startend"), 0);
  EXPECT_EQ(part.at("prompt_strict_reference"), 1);
  EXPECT_EQ(part.at("prompt_strict_lost"), 1);
  EXPECT_EQ(part.at("prompt_strict_won"), 0);
  EXPECT_EQ(part.at("not_scored"), 0);
  const auto loose = scores("ifeval", one, {said("Here:\n\"none\"")});
  EXPECT_EQ(loose.at("inst_strict"), 0.5);
  EXPECT_EQ(loose.at("inst_loose"), 1);
  EXPECT_EQ(loose.at("prompt_loose"), 1);
  // An instruction that the table does not know is not guessed at.
  const Record strange = record(
      R"("instruction_id_list":["punctuation:no_comma","words:start_verb"],"kwargs":[{},{}])");
  const auto some = scores("ifeval", strange, {said("none")});
  EXPECT_EQ(some.at("inst_strict"), 1);
  EXPECT_EQ(some.at("not_scored"), 0.5);
  EXPECT_FALSE(some.contains("prompt_strict"));
  // "ok" has no comma and no quotation marks.
  EXPECT_DOUBLE_EQ(find_task("ifeval").floor(std::span(&one, 1)), 0.5);
}

TEST(GenerativeTasks, KappaOfTheTextbook) {
  // 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no of 50: kappa 0.4.
  Metrics metrics = {{"inst_strict", 0.5, 0, 50, false},
                     {"inst_loose", 0.5, 0, 50, false},
                     {"prompt_strict", 25.0 / 50, 0, 50, false},
                     {"prompt_loose", 0.5, 0, 50, false},
                     {"prompt_strict_reference", 30.0 / 50, 0, 50, false},
                     {"prompt_strict_same", 35.0 / 50, 0, 50, false}};
  find_task("ifeval").derive(metrics);
  ASSERT_NE(find(metrics, "prompt_strict_kappa"), nullptr);
  EXPECT_NEAR(find(metrics, "prompt_strict_kappa")->value, 0.4, 1e-12);
  EXPECT_NEAR(find(metrics, "mean_of_four")->value, 0.5, 1e-12);
}

}  // namespace
}  // namespace crumb::eval
