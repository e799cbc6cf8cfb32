// A model at a task: every item asked, the answers kept.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/eval/items.h"
#include "bench/eval/record.h"
#include "bench/eval/task.h"
#include "engine/engine.h"
#include "engine/progress.h"

namespace crumb::eval {

struct RunOptions {
  std::string data;   // folder
  std::string cache;  // folder for ItemCache, empty: keep nothing
  // What decides the model's numbers: the hash of its file and its fingerprint (fingerprint.h).
  std::string model_key;
  std::string label;  // beside the task's name in progress, may be empty
  int64_t limit = 0;  // first N items, 0 = all
  kernels::KvType kv = kernels::KvType::kI8;
  bool chat = false;          // multiple choice through the chat template (ChatPairs)
  int64_t max_tokens = 0;     // of one generated answer, 0: the task's own
  int64_t window = 512;       // kText
  int64_t side_by_side = 16;  // answers written at a time, 1..128
};

struct TaskRun {
  const Task* task = nullptr;
  std::vector<Record> records;  // the items asked, in the file's order; none for kText
  std::vector<Record> fewshot;
  std::vector<ItemResult> results;  // [records], in the same order
  int64_t available = 0;            // items in the file
  std::string data_hash;
  // Of this run, items found in the cache left out.
  int64_t asked = 0, tokens_run = 0, tokens_reused = 0;
  int64_t dropped_bytes = 0;  // of the texts, that the vocabulary could not hold
  int64_t cut = 0;            // choices whose context was cut at the front
  double seconds = 0;
  std::vector<std::string> notices;
};

// The task's data file and few-shot file, without a model.
TaskRun open_task(const Task& task, const RunOptions& options);

// Text of a kText task: the file, or the "text" fields of a JSONL file joined by blank lines.
std::string task_text(const Task& task, const RunOptions& options);

// Answers do not depend on the number of threads, on what was cached or on the order of the work.
// Throws Error: a data file that is missing or invalid, those of Session; Interrupted (answers so
// far are saved).
TaskRun run_task(std::shared_ptr<const Engine> engine, const Task& task, const RunOptions& options,
                 const ProgressFn& progress);

}  // namespace crumb::eval
