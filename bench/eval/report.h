// What an evaluation found: one model, its tasks, and the difference from a reference.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bench/eval/floors.h"
#include "bench/eval/metrics.h"
#include "bench/eval/paired.h"
#include "bench/eval/run_task.h"

namespace crumb::eval {

// Of one item: the main metric's part (or, where items have none, that of "nll"), and what else two
// reports can be compared by.
struct ReportItem {
  std::string id;
  double value = 0, weight = 0;
  std::optional<double> nll;  // of the right answer, nats a token
  int64_t choice = -1;
  std::vector<double> log_p;  // of every choice
};

struct ReferenceResult {
  std::string paired_metric;  // "acc", "nll"
  PairedResult paired;
  std::optional<double> same_choice;     // share of items
  std::optional<double> same_text;       // share of answers
  std::optional<PairedResult> nll;       // rise of the right answer's
  std::vector<std::string> other_names;  // every other metric over items
  std::vector<PairedResult> others;      // [other_names]
};

struct TaskReport {
  std::string name, dimension, metric, protocol;
  int64_t version = 1;
  std::string data_hash;
  int64_t n = 0, available = 0, unscored = 0;
  int64_t dropped_bytes = 0, cut = 0;
  Metrics metrics;
  std::vector<Floor> floors;
  std::optional<ReferenceResult> reference;
  std::vector<ReportItem> items;
};

struct ModelDescription {
  std::string name, path, weights, hash;
  int64_t file_bytes = 0, parameters = 0;
  double linear_bpw = 0, head_bits = 0, total_bpw = 0;
};
ModelDescription describe(const Engine& engine, std::string hash);

// Speeds and sizes of a run; not part of the answers, so two runs of one evaluation differ here.
struct Efficiency {
  std::string isa, cpu;
  int64_t threads = 0, peak_rss_bytes = 0, kv_bytes_per_token = 0;
  double prefill_tokens_per_s = 0, decode_tokens_per_s = 0;  // pp512, tg128, medians
  std::optional<double> joules_per_token;                    // package energy while decoding
  std::string energy_note;                                   // where it was read, or why not
};

struct Report {
  ModelDescription model;
  std::optional<ModelDescription> reference;
  std::string kv;
  bool chat = false;
  int64_t limit = 0, window = 512, max_tokens = 0;
  uint64_t seed = 0;
  std::vector<TaskReport> tasks;
  std::vector<std::string> not_scored;  // "snli: no data (...)"
  std::optional<Efficiency> efficiency;
  // KL(reference || model) over the windows of the first text task (perplexity.h), if asked for.
  std::optional<double> mean_kld, kld_stderr, same_top;
};

// `reference` null: no reference. The items of both must be the same.
TaskReport report_task(const TaskRun& run, const TaskRun* reference, bool run_code, uint64_t seed);

// The difference of two reports of one task over the items both have. Nothing if the data, version
// or metric differ or no item is common.
std::optional<ReferenceResult> compare_reports(const TaskReport& model, const TaskReport& reference,
                                               uint64_t seed);

// {"schema":"crumb.eval.tasks/1","model":{..},"settings":{..},TASK:{..}, ..}, with "reference",
// "not_scored", "efficiency", "kl":{"mean_kld","stderr_kld","top1"} where they apply. A task:
// {"n","available","metric","dimension", "protocol", every metric by name, "stderr" (of the main
// metric), "errors":{metric:stderr}, "groups":{metrics with "/" in their
// names},"floors":{..},"agreement","kappa","won","lost",
// "delta","delta_stderr","delta_ci95","p","delta_nll","delta_nll_stderr","same_choice",..}. With
// `items` also "items":[{"id","value","weight","nll","choice","log_p"}]. Numbers that are not
// finite or not defined are null.
std::string to_json(const Report& report, bool items);
// Reads what to_json(report, true) wrote, metrics and items; differences from a reference and
// groups are not read. FormatError naming `path` and the field.
Report report_from_json(const std::string& text, const std::string& path);

}  // namespace crumb::eval
