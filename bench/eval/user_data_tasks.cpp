// Generated answers to data that the user brings; bench/eval/README.md has the fields.
#include <algorithm>
#include <map>

#include "bench/eval/gen_overlap.h"
#include "bench/eval/instructions.h"
#include "bench/eval/task.h"

namespace crumb::eval {
namespace {

GenerationPlan chat_plan(std::string message, int64_t max_tokens) {
  GenerationPlan plan;
  plan.turns = {std::move(message)};
  plan.max_tokens = max_tokens;
  return plan;
}

// Summaries ---------------------------------------------------------------------------------------

GenerationPlan article_plan(const Record& record, std::span<const Record>) {
  return chat_plan(
      "Summarize the following article in three sentences.\n\n" + record.text("article"), 192);
}
GenerationPlan one_sentence_plan(const Record& record, std::span<const Record>) {
  return chat_plan("Summarize the following article in one sentence.\n\n" + record.text("article"),
                   96);
}

Scores summary_score(const Record& record, std::span<const Answer> answers, const ScoreContext&) {
  const std::string reference = record.text("summary"), &text = answers.front().text;
  return {{"rouge1", rouge_n(text, reference, 1)},
          {"rouge2", rouge_n(text, reference, 2)},
          {"rougeL", rouge_l(text, reference)}};
}

// Translations ------------------------------------------------------------------------------------

GenerationPlan translation_plan(const Record& record, std::span<const Record>) {
  const std::string from = record.text("source_language"), to = record.text("target_language");
  GenerationPlan plan;
  plan.turns = {from + " phrase: " + record.text("source") + "\n" + to + " phrase:"};
  plan.chat = false;
  plan.group = from + " " + to;
  plan.max_tokens = 192;
  plan.stop = {"\n"};
  return plan;
}

Scores translation_score(const Record& record, std::span<const Answer> answers,
                         const ScoreContext&) {
  const std::string reference = record.text("target"), &text = answers.front().text;
  const std::string pair = record.text("source_language") + "-" + record.text("target_language");
  const double chars = chrf(text, reference) / 100;
  return {{"chrf", chars}, {"bleu", sentence_bleu(text, reference) / 100}, {"chrf/" + pair, chars}};
}

// Constraints added level by level ----------------------------------------------------------------

GenerationPlan constrained_plan(const Record& record, std::span<const Record>) {
  return chat_plan(record.text("prompt"), 512);
}

// ssr: share of the constraints that are kept; hsr: all of them are (Jiang et al., "FollowBench",
// arXiv 2310.20410). What no program here can check is counted in not_scored, and its prompt has no
// hsr.
Scores constrained_score(const Record& record, std::span<const Answer> answers,
                         const ScoreContext&) {
  const std::string level = std::to_string(record.integer("level", 1, 100));
  const Text text = decode(answers.front().text);
  double kept = 0, checked = 0, unknown = 0;
  for (const Instruction& one : instructions_of(record)) {
    const Checker* checker = find_checker(ifeval_checkers(), one.id);
    if (checker == nullptr) checker = find_checker(ifbench_checkers(), one.id);
    if (checker == nullptr) {
      unknown += 1;
      continue;
    }
    checked += 1;
    kept += follows_strictly(*checker, one.arguments, text) ? 1 : 0;
  }
  Scores scores = {{"not_scored", unknown, unknown + checked}};
  if (checked == 0) return scores;
  scores.push_back({"ssr", kept / checked});
  scores.push_back({"ssr/level_" + level, kept / checked});
  if (unknown > 0) return scores;
  const double all = kept == checked ? 1 : 0;
  scores.push_back({"hsr", all});
  scores.push_back({"hsr/level_" + level, all});
  return scores;
}

// The question that levels build on: the field "question", else the id up to its last '/'.
std::string question_of(const Record& record) {
  if (record.has("question")) return record.text("question");
  return record.id().substr(0, record.id().rfind('/'));
}

// csl: how many levels from 1 on are kept in a row (FollowBench, equation 4), on the item of level
// 1. A question whose levels have a gap, or one no program here can check, before the first that is
// not kept has none.
void add_consecutive_levels(std::span<const Record> records, std::vector<ItemScore>& items) {
  std::map<std::string, std::map<int64_t, std::size_t>> questions;  // level -> item
  for (std::size_t i = 0; i < records.size(); ++i) {
    const bool first =
        questions[question_of(records[i])].emplace(records[i].integer("level", 1, 100), i).second;
    if (!first) records[i].fail("level", "one item a level of a question", "a second one");
  }
  for (const auto& [question, levels] : questions) {
    int64_t kept = 0;
    bool known = true;
    for (const auto& [level, item] : levels) {
      const ItemValue all = value_of(items[item], "hsr");
      known = level == kept + 1 && all.there;
      if (!known || !all.right()) break;
      ++kept;
    }
    if (known) items[levels.begin()->second].scores.push_back({"csl", static_cast<double>(kept)});
  }
}

constexpr Task kTasks[] = {
    {
        .name = "cnn_dailymail",
        .dimension = "understanding",
        .kind = TaskKind::kGenerate,
        .data = "cnn_dailymail/dev.jsonl",
        .metric = "rougeL",
        .protocol = "chat, \"Summarize the following article in three sentences.\", 192 tokens; "
                    "mean ROUGE F1",
        .plan = article_plan,
        .score_answer = summary_score,
    },
    {
        .name = "xsum",
        .dimension = "understanding",
        .kind = TaskKind::kGenerate,
        .data = "xsum/dev.jsonl",
        .metric = "rougeL",
        .protocol = "chat, \"Summarize the following article in one sentence.\", 96 tokens; mean "
                    "ROUGE F1",
        .plan = one_sentence_plan,
        .score_answer = summary_score,
    },
    {
        .name = "flores",
        .dimension = "understanding",
        .kind = TaskKind::kGenerate,
        .data = "flores/dev.jsonl",
        .metric = "chrf",
        .protocol = "0-shot, \"English phrase: ..\\nGerman phrase:\" to the end of the line; means "
                    "of sentences' chrF and BLEU, in shares of 1",
        .plan = translation_plan,
        .score_answer = translation_score,
    },
    {
        .name = "followbench",
        .dimension = "helpfulness",
        .kind = TaskKind::kGenerate,
        .data = "followbench/dev.jsonl",
        .metric = "ssr",
        .protocol = "chat, 512 tokens; constraints that programs check (IFEval's and IFBench's "
                    "kinds), by level; no judge",
        .plan = constrained_plan,
        .score_answer = constrained_score,
        .across = add_consecutive_levels,
        .notice = "constraints that need a judge are not scored (not_scored is their share)",
    },
};

}  // namespace

std::span<const Task> user_data_tasks() { return kTasks; }

}  // namespace crumb::eval
