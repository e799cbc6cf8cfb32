// What a benchmark is: a data file, how a record becomes a question, how the answer is scored.
// Tasks are rows of tables; adding one is adding a row (choice_tasks.cpp, generative_tasks.cpp).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/eval/record.h"
#include "engine/generate.h"

namespace crumb::eval {

// A part of a metric: the metric is sum(value) / sum(weight) over the items that give it. An
// accuracy gives value 0 or 1 with weight 1; an accuracy over instructions gives value 2, weight 3
// for a prompt with two of three followed; a perplexity gives the window's nats and its tokens.
struct Score {
  std::string name;
  double value = 0, weight = 1;
};
using Scores = std::vector<Score>;

struct ItemScore {
  Scores scores;
  int64_t choice = -1;  // the likeliest of two or more, else -1
  bool scored() const { return !scores.empty(); }
};
// The item's value of a metric, value / weight; nothing if it has none.
struct ItemValue {
  bool there = false;
  double value = 0;
  bool right() const { return value > 0.5; }
};
ItemValue value_of(const ItemScore& item, std::string_view metric);

struct Metric {
  std::string name;
  double value = 0;
  double error = 0;      // standard error: the ratio's, items taken as independent; < 0: not known
  double weight = 0;     // sum of weights
  bool derived = false;  // by Task::derive, not a mean over items
};
using Metrics = std::vector<Metric>;
const Metric* find(const Metrics& metrics, std::string_view name);

// Multiple choice ---------------------------------------------------------------------------------

struct Choice {
  std::string context, continuation;  // log P(continuation | context)
  int64_t bytes = 0;                  // of the choice's own text, what acc_norm divides by
};
struct Question {
  std::string group;            // subject or category; questions of one group run together
  std::vector<Choice> choices;  // at least one
  std::vector<bool> right;      // [choices]
};
struct Likelihood {
  double log_p = 0;     // sum over the continuation's tokens, nats
  int64_t tokens = 0;   // of the continuation
  bool greedy = false;  // every token is the most likely one at its place
  friend bool operator==(const Likelihood&, const Likelihood&) = default;
};

// The index of the largest log P, the first of equals; by_byte: of log P / bytes of the choice. all
// is not empty. (NaN cannot occur: the engine refuses logits that are not finite.)
std::size_t likeliest(const Question& question, std::span<const Likelihood> all);
std::size_t likeliest_by_byte(const Question& question, std::span<const Likelihood> all);

// Generation --------------------------------------------------------------------------------------

struct GenerationPlan {
  // Chat: the user's messages, one after the other, each answered before the next is asked. Raw:
  // one text to continue (turns.size() == 1).
  std::vector<std::string> turns;
  bool chat = true;          // through the model's template
  std::string group;         // as Question::group: long common few-shot prompts run together
  int64_t max_tokens = 512;  // of one answer
  std::vector<std::string> stop;
};
struct Answer {
  std::string text;  // without the stop text or token
  FinishReason reason = FinishReason::kStop;
  int64_t tokens = 0;
  friend bool operator==(const Answer&, const Answer&) = default;
};
// The answer ends in a loop: it has over 120 characters and its last 40 occur three times or more
// (overlapping ones count).
bool looped(std::string_view text);

struct ScoreContext {
  bool run_code = false;                // the user allowed the model's programs to be run
  std::span<const Answer> reference{};  // the reference model's answers to the same turns, or none
};

// -------------------------------------------------------------------------------------------------

enum class TaskKind : uint8_t { kChoice, kText, kGenerate };

struct Task {
  std::string_view name{}, dimension{};  // "arc_easy", "knowledge"
  TaskKind kind = TaskKind::kChoice;
  std::string_view data{}, fewshot{};  // files under the data folder
  std::string_view metric{};           // the one that stands for the task in tables
  // One line: prompt form, shots, and where it differs from the published protocol.
  std::string_view protocol{};
  int version = 1;  // raised when prompt or score changes: reports of two versions are not paired

  // kChoice
  Question (*question)(const Record&, std::span<const Record> fewshot) = nullptr;
  Scores (*score_choice)(const Record&, const Question&, std::span<const Likelihood>) = nullptr;
  // kGenerate
  GenerationPlan (*plan)(const Record&, std::span<const Record> fewshot) = nullptr;
  // answers [turns]. Pure but for programs that are run. "looped", "at_limit" and "tokens" are
  // added by the framework.
  Scores (*score_answer)(const Record&, std::span<const Answer> answers,
                         const ScoreContext&) = nullptr;
  // Adds scores that items have together (levels of one question) to some of them.
  void (*across)(std::span<const Record>, std::vector<ItemScore>& items) = nullptr;
  // Adds metrics computed from the others (a bias score, a perplexity, a mean over subjects).
  void (*derive)(Metrics&) = nullptr;
  // A constant strategy that needs no model, for the floor beside the score: the metric it reaches
  // over these records. Null: the general ones of floors.h (kChoice) or none.
  double (*floor)(std::span<const Record>) = nullptr;
  std::string_view floor_name{};
  std::string_view notice{};  // what is approximated or left out: printed with every run
};

std::span<const Task> choice_tasks();
std::span<const Task> text_tasks();
std::span<const Task> generative_tasks();
std::span<const Task> user_data_tasks();
// Throws Error(kUsage) listing the names.
const Task& find_task(std::string_view name);
std::vector<const Task*> all_tasks();
// The tasks of a suite ("all", "choice", "language", "generation", "ceq", "quick"), or the one task
// of that name. Throws Error(kUsage).
std::vector<const Task*> tasks_named(std::string_view name);
std::string suite_names();

}  // namespace crumb::eval
