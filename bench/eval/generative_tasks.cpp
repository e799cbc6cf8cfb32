// Tasks whose answers are generated texts.
#include <algorithm>
#include <cmath>

#include "bench/eval/gen_answers.h"
#include "bench/eval/gen_overlap.h"
#include "bench/eval/instructions.h"
#include "bench/eval/sandbox.h"
#include "bench/eval/task.h"

namespace crumb::eval {
namespace {

GenerationPlan chat_plan(std::vector<std::string> turns, int64_t max_tokens) {
  GenerationPlan plan;
  plan.turns = std::move(turns);
  plan.max_tokens = max_tokens;
  return plan;
}

GenerationPlan raw_plan(std::string prompt, std::string group, int64_t max_tokens,
                        std::vector<std::string> stop) {
  GenerationPlan plan;
  plan.turns = {std::move(prompt)};
  plan.chat = false;
  plan.group = std::move(group);
  plan.max_tokens = max_tokens;
  plan.stop = std::move(stop);
  return plan;
}

Score flag(std::string name, bool value) { return {std::move(name), value ? 1.0 : 0.0, 1}; }

// Instructions ------------------------------------------------------------------------------------

struct Verdict {
  double strict = 0, loose = 0, scored = 0;  // instructions
  bool all_strict() const { return strict == scored; }
  bool all_loose() const { return loose == scored; }
};

Verdict verdict_of(std::span<const Checker> table, const std::vector<Instruction>& instructions,
                   std::string_view answer, Scores* kinds) {
  const Text text = decode(answer);
  Verdict verdict;
  for (const Instruction& one : instructions) {
    const Checker* checker = find_checker(table, one.id);
    if (checker == nullptr) continue;
    const bool strict = follows_strictly(*checker, one.arguments, text);
    verdict.scored += 1;
    verdict.strict += strict ? 1 : 0;
    verdict.loose += strict || follows_loosely(*checker, one.arguments, text) ? 1 : 0;
    if (kinds != nullptr)
      kinds->push_back(flag("inst_strict/" + one.id.substr(0, one.id.find(':')), strict));
  }
  return verdict;
}

// Beside the four accuracies: what the reference's answer got, for kappa and won / lost over
// prompts. An instruction that the table does not know is not scored, nor is its prompt as a whole.
Scores follow(std::span<const Checker> table, const Record& record, std::span<const Answer> answers,
              const ScoreContext& context) {
  const auto instructions = instructions_of(record);
  Scores kinds;
  const Verdict own = verdict_of(table, instructions, answers.front().text, &kinds);
  const auto unknown = static_cast<double>(instructions.size()) - own.scored;
  Scores scores = {{"not_scored", unknown, unknown + own.scored}};
  if (own.scored == 0) return scores;
  scores.push_back({"inst_strict", own.strict, own.scored});
  scores.push_back({"inst_loose", own.loose, own.scored});
  if (unknown == 0) {
    scores.push_back(flag("prompt_strict", own.all_strict()));
    scores.push_back(flag("prompt_loose", own.all_loose()));
    if (!context.reference.empty()) {
      const bool other =
          verdict_of(table, instructions, context.reference.front().text, nullptr).all_strict();
      scores.push_back(flag("prompt_strict_reference", other));
      scores.push_back(flag("prompt_strict_same", other == own.all_strict()));
      scores.push_back(flag("prompt_strict_won", own.all_strict() && !other));
      scores.push_back(flag("prompt_strict_lost", !own.all_strict() && other));
    }
  }
  scores.insert(scores.end(), kinds.begin(), kinds.end());
  return scores;
}

Scores follow_ifeval(const Record& record, std::span<const Answer> answers,
                     const ScoreContext& context) {
  return follow(ifeval_checkers(), record, answers, context);
}
Scores follow_ifbench(const Record& record, std::span<const Answer> answers,
                      const ScoreContext& context) {
  return follow(ifbench_checkers(), record, answers, context);
}

GenerationPlan instruction_plan(const Record& record, std::span<const Record>) {
  return chat_plan({record.text("prompt")}, 512);
}

// Cohen's kappa over prompts, strict: agreement beyond what two judges of these rates share by
// chance. The mean of the four accuracies is what model cards call "IFEval".
void add_instruction_means(Metrics& metrics) {
  double sum = 0;
  int there = 0;
  for (const char* name : {"prompt_strict", "inst_strict", "prompt_loose", "inst_loose"})
    if (const Metric* one = find(metrics, name)) {
      sum += one->value;
      ++there;
    }
  const Metric* own = find(metrics, "prompt_strict");
  const Metric* other = find(metrics, "prompt_strict_reference");
  const Metric* same = find(metrics, "prompt_strict_same");
  double kappa = 0;
  bool has_kappa = false;
  if (own != nullptr && other != nullptr && same != nullptr) {
    const double a = own->value, b = other->value, chance = a * b + (1 - a) * (1 - b);
    has_kappa = chance < 1;
    if (has_kappa) kappa = (same->value - chance) / (1 - chance);
  }
  const double weight = own == nullptr ? 0 : own->weight;
  if (there == 4) metrics.push_back({"mean_of_four", sum / 4, -1, weight, true});
  if (has_kappa) metrics.push_back({"prompt_strict_kappa", kappa, -1, weight, true});
}

// The constant answer "ok": inst_strict over these records.
template <std::span<const Checker> (*kTable)()>
double floor_of_ok(std::span<const Record> records) {
  double strict = 0, scored = 0;
  for (const Record& record : records) {
    const Verdict verdict = verdict_of(kTable(), instructions_of(record), "ok", nullptr);
    strict += verdict.strict;
    scored += verdict.scored;
  }
  return scored > 0 ? strict / scored : 0;
}

// Word problems -----------------------------------------------------------------------------------

constexpr std::size_t kMathShots = 5;

GenerationPlan math_plan(const Record& record, std::span<const Record> fewshot) {
  std::string prompt;
  for (const Record& shot : fewshot.first(std::min(kMathShots, fewshot.size())))
    prompt += "Question: " + shot.text("question") + "\nAnswer: " + shot.text("solution") + "\n\n";
  prompt += "Question: " + record.text("question") + "\nAnswer:";
  return raw_plan(std::move(prompt), {}, 256, {"Question:", "</s>", "<|im_end|>"});
}

Scores math_score(const Record& record, std::span<const Answer> answers, const ScoreContext&) {
  const std::string gold = record.text("answer"), &text = answers.front().text;
  return {flag("strict_match", same_number_text(strict_number(text), gold)),
          flag("flexible_match", same_number_text(flexible_number(text), gold))};
}
// SVAMP's figures come as "8" or "8.0": compared as numbers.
Scores number_score(const Record& record, std::span<const Answer> answers, const ScoreContext&) {
  const std::string gold = record.text("answer"), &text = answers.front().text;
  return {flag("strict_match", same_number_value(strict_number(text), gold)),
          flag("flexible_match", same_number_value(flexible_number(text), gold))};
}

// Puzzles -----------------------------------------------------------------------------------------

GenerationPlan puzzle_plan(const Record& record, std::span<const Record> fewshot) {
  const std::string task = record.text("task");
  const auto shots = std::find_if(fewshot.begin(), fewshot.end(),
                                  [&](const Record& one) { return one.text("task") == task; });
  if (shots == fewshot.end())
    record.fail("task", "a task with a prompt in the few-shot file", task);
  return raw_plan(
      shots->text("prompt") + "\n\nQ: " + record.text("input") + "\nA: Let's think step by step.",
      task, 512, {"</s>", "Q", "\n\n"});
}

Scores puzzle_score(const Record& record, std::span<const Answer> answers, const ScoreContext&) {
  const bool right = puzzle_answer(answers.front().text) == record.text("target");
  return {flag("exact_match", right), flag("exact_match/" + record.text("task"), right)};
}

// Programs ----------------------------------------------------------------------------------------

// The shots of the paper (Austin et al., arXiv 2108.07732) and of lm-eval.
constexpr const char* kProgramShots[] = {"mbpp/2", "mbpp/3", "mbpp/4"};

std::string program_question(const Record& record) {
  std::string text =
      "You are an expert Python programmer, and here is your task: " + record.text("text") +
      " Your code should pass these tests:\n\n";
  for (const std::string& test : record.texts("tests")) text += test + "\n";
  return text + "[BEGIN]\n";
}

GenerationPlan mbpp_plan(const Record& record, std::span<const Record> fewshot) {
  std::string prompt;
  for (const char* id : kProgramShots)
    for (const Record& shot : fewshot)
      if (shot.id() == id) prompt += program_question(shot) + shot.text("code") + "\n[DONE]\n\n";
  return raw_plan(prompt + program_question(record), {}, 512, {"[DONE]"});
}
GenerationPlan humaneval_plan(const Record& record, std::span<const Record>) {
  return raw_plan(record.text("prompt"), {}, 512, {"\nclass", "\ndef", "\n#", "\nif", "\nprint"});
}

Scores program_score(const std::string& program, const ScoreContext& context) {
  if (!context.run_code || !sandbox_missing().empty()) return {};
  const ProgramEnd end = run_python(program);
  return {flag("pass@1", end == ProgramEnd::kPassed),
          flag("timed_out", end == ProgramEnd::kTimedOut)};
}
Scores mbpp_score(const Record& record, std::span<const Answer> answers,
                  const ScoreContext& context) {
  return program_score(
      mbpp_program(answers.front().text, record.text("test_setup_code"), record.texts("tests")),
      context);
}
Scores humaneval_score(const Record& record, std::span<const Answer> answers,
                       const ScoreContext& context) {
  return program_score(humaneval_program(record.text("prompt"), answers.front().text,
                                         record.text("test"), record.text("entry_point")),
                       context);
}

// Open questions, beside the reference model's answers --------------------------------------------

GenerationPlan conversation_plan(const Record& record, std::span<const Record>) {
  return chat_plan(record.texts("turns"), 512);
}

// Means over the turns. Without a reference there is nothing to set the answers against.
Scores likeness(const Record&, std::span<const Answer> answers, const ScoreContext& context) {
  if (context.reference.size() != answers.size()) return {};
  Scores scores = {{"rouge1", 0, 0}, {"rouge2", 0, 0}, {"rougeL", 0, 0},
                   {"bleu", 0, 0},   {"chrf", 0, 0},   {"same_text", 0, 0}};
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const std::string &own = answers[i].text, &other = context.reference[i].text;
    const double values[] = {rouge_n(own, other, 1), rouge_n(own, other, 2),
                             rouge_l(own, other),    sentence_bleu(own, other) / 100,
                             chrf(own, other) / 100, own == other ? 1.0 : 0.0};
    for (std::size_t k = 0; k < scores.size(); ++k) {
      scores[k].value += values[k];
      scores[k].weight += 1;
    }
  }
  return scores;
}

GenerationPlan truthful_plan(const Record& record, std::span<const Record>) {
  return chat_plan({record.text("question")}, 128);
}

// Is the answer nearer to a true reference answer than to any false one?
Scores truthful_score(const Record& record, std::span<const Answer> answers, const ScoreContext&) {
  const Record all = record.object("mc2");
  const auto choices = all.texts("choices");
  const auto labels = all.integers("labels", 0, 1);
  if (choices.size() != labels.size())
    record.fail("mc2", std::to_string(choices.size()) + " labels", std::to_string(labels.size()));
  const std::string& text = answers.front().text;
  double best[3][2] = {};  // bleu, rouge1, rougeL; false, true
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const double values[] = {sentence_bleu(text, choices[i]) / 100, rouge_n(text, choices[i], 1),
                             rouge_l(text, choices[i])};
    for (std::size_t k = 0; k < 3; ++k) {
      double& one = best[k][labels[i]];
      one = std::max(one, values[k]);
    }
  }
  return {flag("rougeL_acc", best[2][1] > best[2][0]), flag("rouge1_acc", best[1][1] > best[1][0]),
          flag("bleu_acc", best[0][1] > best[0][0])};
}

constexpr Task kTasks[] = {
    {
        .name = "ifeval",
        .dimension = "helpfulness",
        .kind = TaskKind::kGenerate,
        .data = "ifeval/dev.jsonl",
        .metric = "inst_strict",
        .protocol = "chat, greedy, 512 tokens (lm-eval: 1,280); checkers as lm-eval 0.4.13",
        .plan = instruction_plan,
        .score_answer = follow_ifeval,
        .derive = add_instruction_means,
        .floor = floor_of_ok<ifeval_checkers>,
        .floor_name = "answer \"ok\"",
        .notice = "languages are told by script and function words (langdetect's profiles are not "
                  "here), sentences without punkt's trained lists",
    },
    {
        .name = "ifbench",
        .dimension = "helpfulness",
        .kind = TaskKind::kGenerate,
        .data = "ifbench/dev.jsonl",
        .metric = "inst_strict",
        .protocol = "chat, greedy, 512 tokens; not_scored: share of instructions without a checker",
        .plan = instruction_plan,
        .score_answer = follow_ifbench,
        .derive = add_instruction_means,
        .floor = floor_of_ok<ifbench_checkers>,
        .floor_name = "answer \"ok\"",
        .notice = "not scored: format:emoji, words:start_verb, words:odd_even_syllables, "
                  "custom:csv_special_character; sentences without punkt's trained lists",
    },
    {
        .name = "gsm8k",
        .dimension = "reasoning",
        .kind = TaskKind::kGenerate,
        .data = "gsm8k/dev.jsonl",
        .fewshot = "gsm8k/fewshot.jsonl",
        .metric = "strict_match",
        .protocol = "5-shot, \"Question: ..\\nAnswer:\", 256 tokens; number after \"#### \", and "
                    "the last number (flexible_match)",
        .plan = math_plan,
        .score_answer = math_score,
    },
    {
        .name = "svamp",
        .dimension = "reasoning",
        .kind = TaskKind::kGenerate,
        .data = "svamp/dev.jsonl",
        .fewshot = "gsm8k/fewshot.jsonl",
        .metric = "flexible_match",
        .protocol = "gsm8k's five shots and prompt, numbers compared by value",
        .plan = math_plan,
        .score_answer = number_score,
    },
    {
        .name = "bbh",
        .dimension = "reasoning",
        .kind = TaskKind::kGenerate,
        .data = "bbh/dev.jsonl",
        .fewshot = "bbh/cot_prompts.jsonl",
        .metric = "exact_match",
        .protocol = "3-shot chain of thought of the task, 512 tokens (lm-eval: 1,024); text after "
                    "\"the answer is \"",
        .plan = puzzle_plan,
        .score_answer = puzzle_score,
    },
    {
        .name = "mbpp",
        .dimension = "programs",
        .kind = TaskKind::kGenerate,
        .data = "mbpp/dev.jsonl",
        .fewshot = "mbpp/fewshot.jsonl",
        .metric = "pass@1",
        .protocol = "3-shot, [BEGIN] .. [DONE], 512 tokens; programs run in a sandbox",
        .plan = mbpp_plan,
        .score_answer = mbpp_score,
    },
    {
        .name = "humaneval",
        .dimension = "programs",
        .kind = TaskKind::kGenerate,
        .data = "humaneval/dev.jsonl",
        .metric = "pass@1",
        .protocol = "0-shot completion, 512 tokens (lm-eval: 1,024); programs run in a sandbox",
        .plan = humaneval_plan,
        .score_answer = humaneval_score,
    },
    {
        .name = "mt_bench",
        .dimension = "helpfulness",
        .kind = TaskKind::kGenerate,
        .data = "mt_bench/dev.jsonl",
        .metric = "rougeL",
        .protocol = "chat, two turns, 512 tokens each; no judge: overlap with the reference "
                    "model's answers",
        .plan = conversation_plan,
        .score_answer = likeness,
    },
    {
        .name = "truthfulqa_gen",
        .dimension = "honesty",
        .kind = TaskKind::kGenerate,
        .data = "truthfulqa/dev.jsonl",
        .metric = "rougeL_acc",
        .protocol = "chat (lm-eval: six Q/A pairs before), 128 tokens; nearer to a true than to "
                    "any false answer",
        .plan = truthful_plan,
        .score_answer = truthful_score,
    },
};

}  // namespace

std::span<const Task> generative_tasks() { return kTasks; }

}  // namespace crumb::eval
