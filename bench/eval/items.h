// What a model said to each item of a task, kept in a file so that a run can be stopped at any time
// and taken up again.
#pragma once
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "bench/eval/task.h"

namespace crumb::eval {

struct ItemResult {
  std::string id;
  std::string prompt;               // hash of all that was asked (prompt_hash)
  std::vector<Likelihood> choices;  // kChoice, kText (one: the window)
  std::vector<Answer> answers;      // kGenerate, one a turn
  friend bool operator==(const ItemResult&, const ItemResult&) = default;
};

// 16 hexadecimal digits, of the parts and their lengths.
std::string prompt_hash(const std::vector<std::string>& parts);

// One file a task and model: FOLDER/TASK-HASH.jsonl. Line 1 {"schema":"crumb.eval.items/1","key"};
// then a line an item, {"id","prompt","log_p":[..],"tokens":[..],"greedy":[..]} or {"id","prompt",
// "texts":[..],"reasons":[..],"tokens":[..]}. The file is replaced whole (models/file_writer.h), at
// most every `interval` and by save(): a killed process loses the items since.
class ItemCache {
 public:
  // `key` is what decides the answers beside the prompts; HASH is its hash. An empty folder keeps
  // nothing. Throws IoError (folder cannot be made, file cannot be read). A file that is not whole
  // and valid is not used: `problem()` then says why.
  ItemCache(const std::string& folder, std::string_view task, const std::string& key,
            std::chrono::milliseconds interval = std::chrono::seconds(10));

  // Null also if the item was asked otherwise.
  const ItemResult* find(const std::string& id, const std::string& prompt) const;
  void add(ItemResult result);
  void save();
  const std::string& path() const { return path_; }
  const std::string& problem() const { return problem_; }

 private:
  void read();

  std::string path_, key_, problem_;
  std::chrono::milliseconds interval_;
  std::chrono::steady_clock::time_point saved_;
  std::map<std::string, ItemResult> items_;
  bool changed_ = false;
};

}  // namespace crumb::eval
