#include "bench/eval/run_task.h"

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "bench/eval/generation.h"
#include "bench/eval/likelihood.h"
#include "bench/eval/scoring.h"
#include "bench/eval/windows.h"
#include "models/content_hash.h"
#include "models/errors.h"
#include "models/mapped_file.h"
#include "models/text.h"

namespace crumb::eval {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string in_folder(const RunOptions& options, std::string_view file) {
  return (fs::path(options.data) / file).string();
}

const char* kv_name(kernels::KvType kv) {
  switch (kv) {
    case kernels::KvType::kI8:
      return "i8";
    case kernels::KvType::kF16:
      return "f16";
    case kernels::KvType::kF32:
      return "f32";
  }
  return "";
}

// What decides the answers beside the prompts. "sums": raised when log P is summed otherwise.
std::string cache_key(const TaskRun& run, const RunOptions& options) {
  std::string key = "sums 2; model " + options.model_key + "; task " + std::string(run.task->name) +
                    "; kv " + kv_name(options.kv);
  if (run.task->kind == TaskKind::kChoice && options.chat) key += "; chat";
  return key;
}

struct Asked {
  std::string id, prompt, group;  // prompt: prompt_hash
};

// Asks what the cache does not have and fills run.results in the order of `all`. Items of one group
// follow each other, so that what their prompts have in common is read once.
struct Worker {
  using Done = std::function<void(std::size_t i, ItemResult result)>;

  TaskRun& run;
  ItemCache& cache;
  const ProgressFn& progress;
  std::string stage;

  // ask(order, tell, done): asks the items of `order`, tells done(i, result) of each (a result
  // without id and prompt), and may call tell() while it works.
  template <class Ask>
  void work(const std::vector<Asked>& all, Ask&& ask) {
    const std::vector<std::size_t> order = not_kept(all);
    const auto total = std::ssize(order);
    std::string latest = total > 0 ? all[order.front()].id : "";
    const auto tell = [&] {
      if (progress && total > 0 && !progress({stage, latest, run.asked, total}))
        throw Interrupted{};
    };
    const auto start = Clock::now();
    try {
      tell();
      ask(std::span<const std::size_t>(order), tell, [&](std::size_t i, ItemResult result) {
        result.id = latest = all[i].id;
        result.prompt = all[i].prompt;
        run.results[i] = result;
        cache.add(std::move(result));
        ++run.asked;
        tell();
      });
    } catch (...) {
      cache.save();
      throw;
    }
    run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    cache.save();
  }

 private:
  std::vector<std::size_t> not_kept(const std::vector<Asked>& all) {
    run.results.resize(all.size());
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (const ItemResult* kept = cache.find(all[i].id, all[i].prompt))
        run.results[i] = *kept;
      else
        order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return all[a].group < all[b].group; });
    return order;
  }
};

std::string hash_of(const Question& question) {
  std::vector<std::string> parts;
  for (const Choice& choice : question.choices) {
    parts.push_back(choice.context);
    parts.push_back(choice.continuation);
  }
  return prompt_hash(parts);
}

std::string hash_of(const GenerationPlan& plan) {
  std::vector<std::string> parts = {plan.chat ? "chat" : "raw", std::to_string(plan.max_tokens)};
  parts.insert(parts.end(), plan.turns.begin(), plan.turns.end());
  parts.emplace_back("stop");
  parts.insert(parts.end(), plan.stop.begin(), plan.stop.end());
  return prompt_hash(parts);
}

template <class T>
std::vector<const T*> pick(const std::vector<T>& all, std::span<const std::size_t> order) {
  std::vector<const T*> picked;
  for (const std::size_t i : order) picked.push_back(&all[i]);
  return picked;
}

void run_choices(const std::shared_ptr<const Engine>& engine, const RunOptions& options,
                 Worker& worker) {
  TaskRun& run = worker.run;
  std::vector<Question> questions;
  std::vector<Asked> all;
  for (const Record& record : run.records) {
    questions.push_back(run.task->question(record, run.fewshot));
    all.push_back({record.id(), hash_of(questions.back()), questions.back().group});
  }
  LikelihoodScorer scorer(engine, options.kv, options.chat);
  worker.work(all, [&](std::span<const std::size_t> order, auto&&, const Worker::Done& done) {
    scorer.score(pick(questions, order), [&](std::size_t k, std::vector<Likelihood> choices) {
      done(order[k], {{}, {}, std::move(choices), {}});
    });
  });
  run.tokens_run = scorer.tokens_run();
  run.tokens_reused = scorer.tokens_reused();
  run.dropped_bytes = scorer.dropped_bytes();
  run.cut = scorer.cut_questions();
}

void run_answers(const std::shared_ptr<const Engine>& engine, const RunOptions& options,
                 Worker& worker) {
  TaskRun& run = worker.run;
  std::vector<GenerationPlan> plans;
  std::vector<Asked> all;
  for (const Record& record : run.records) {
    plans.push_back(run.task->plan(record, run.fewshot));
    if (options.max_tokens > 0) plans.back().max_tokens = options.max_tokens;
    all.push_back({record.id(), hash_of(plans.back()), plans.back().group});
  }
  AnswerWriter writer(engine, options.kv, options.side_by_side);
  worker.work(all, [&](std::span<const std::size_t> order, auto&& tell, const Worker::Done& done) {
    const auto keep_going = [&] {
      tell();
      return true;
    };
    writer.answer(pick(plans, order), keep_going, [&](std::size_t k, std::vector<Answer> answers) {
      done(order[k], {{}, {}, {}, std::move(answers)});
    });
  });
  run.tokens_run = writer.tokens_run();
  run.tokens_reused = writer.tokens_reused();
  run.dropped_bytes = writer.dropped_bytes();
}

std::vector<Asked> asked_windows(const Windows& windows) {
  std::vector<Asked> all;
  for (int64_t w = 0; w < windows.count; ++w) {
    const auto ids = windows.window(w);
    all.push_back(
        {"window/" + std::to_string(windows.size) + "/" + std::to_string(w),
         prompt_hash({std::string(reinterpret_cast<const char*>(ids.data()), ids.size_bytes())}),
         {}});
  }
  return all;
}

void run_text(const std::shared_ptr<const Engine>& engine, const RunOptions& options,
              Worker& worker) {
  TaskRun& run = worker.run;
  WindowOptions window;
  window.window = options.window;
  window.kv = options.kv;
  Windows windows = cut_windows(*engine, task_text(*run.task, options), window);
  run.available = windows.count;
  if (options.limit > 0) windows.count = std::min(windows.count, options.limit);
  run.dropped_bytes = windows.dropped_bytes;
  SessionOptions session_options;
  session_options.context = windows.size;
  session_options.kv = options.kv;
  const auto session = engine->make_session(session_options);
  std::vector<double> nll(static_cast<std::size_t>(windows.scored()));
  const auto ask = [&](std::size_t w) {
    const auto ids = windows.window(static_cast<int64_t>(w));
    run_window(*session, windows, static_cast<int64_t>(w), engine->thread_plan().threads,
               [&](int64_t i, std::span<const float> logits) {
                 nll[static_cast<std::size_t>(i)] = negative_log_likelihood(
                     logits, ids[static_cast<std::size_t>(windows.first + i + 1)]);
               });
    run.tokens_run += windows.size - 1;
    return Likelihood{-std::accumulate(nll.begin(), nll.end(), 0.0), windows.scored(), false};
  };
  worker.work(asked_windows(windows),
              [&](std::span<const std::size_t> order, auto&&, const Worker::Done& done) {
                for (const std::size_t w : order) done(w, {{}, {}, {ask(w)}, {}});
              });
}

}  // namespace

std::string task_text(const Task& task, const RunOptions& options) {
  const std::string path = in_folder(options, task.data);
  if (!path.ends_with(".jsonl")) return models::read_text(path);
  std::string text;
  for (const Record& record : read_records(path).records) {
    if (!text.empty()) text += "\n\n";
    text += record.text("text");
  }
  return text;
}

TaskRun open_task(const Task& task, const RunOptions& options) {
  TaskRun run;
  run.task = &task;
  const std::string path = in_folder(options, task.data);
  if (task.kind == TaskKind::kText) {
    const models::MappedFile file(path);
    run.data_hash = models::content_hash(file.bytes());
    return run;
  }
  RecordFile file = read_records(path);
  run.available = std::ssize(file.records);
  run.data_hash = file.hash;
  if (options.limit > 0 && options.limit < run.available)
    file.records.erase(file.records.begin() + options.limit, file.records.end());
  run.records = std::move(file.records);
  // Answers through the template are answers to other questions.
  if (task.kind == TaskKind::kChoice && options.chat) run.data_hash += " chat";
  if (!task.fewshot.empty()) {
    RecordFile fewshot = read_records(in_folder(options, task.fewshot));
    run.data_hash += " " + fewshot.hash;
    run.fewshot = std::move(fewshot.records);
  }
  return run;
}

TaskRun run_task(std::shared_ptr<const Engine> engine, const Task& task, const RunOptions& options,
                 const ProgressFn& progress) {
  TaskRun run = open_task(task, options);
  if (!task.notice.empty())
    run.notices.push_back(std::string(task.name) + ": " + std::string(task.notice));
  ItemCache cache(options.cache, task.name, cache_key(run, options));
  if (!cache.problem().empty())
    run.notices.push_back("kept answers are not used: " + cache.problem());
  Worker worker{run, cache, progress, std::string(task.name)};
  if (!options.label.empty()) worker.stage += " (" + options.label + ")";
  switch (task.kind) {
    case TaskKind::kChoice:
      run_choices(engine, options, worker);
      break;
    case TaskKind::kText:
      run_text(engine, options, worker);
      break;
    case TaskKind::kGenerate:
      run_answers(engine, options, worker);
      break;
  }
  return run;
}

}  // namespace crumb::eval
