#include "bench/eval/windows.h"

#include <algorithm>

#include "bench/eval/parallel.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

// Rows collected before the threads score them: enough work for each, a few MB of logits.
constexpr int64_t kBatch = 32;

[[noreturn]] void refuse(const std::string& what, const std::string& expected, int64_t found) {
  throw Error(ExitCode::kUsage,
              what + " (expected " + expected + ", found " + std::to_string(found) + ")");
}

void score_batch(const std::vector<float>& logits, int64_t V, int64_t first, int64_t rows,
                 int threads, const ScoreFn& score) {
  in_parallel(rows, threads, [&](int64_t i) {
    score(first + i,
          std::span(logits).subspan(static_cast<std::size_t>(i * V), static_cast<std::size_t>(V)));
  });
}

}  // namespace

Windows cut_windows(const Engine& engine, const std::string& text, const WindowOptions& options) {
  const int64_t context = engine.config().context;
  if (options.window < 2 || options.window > context)
    refuse("window out of range", "2.." + std::to_string(context) + " tokens, the model's context",
           options.window);
  if (options.limit < 0) refuse("limit of windows out of range", "0 (all) or more", options.limit);
  tokenizer::EncodeReport report;
  Windows windows;
  windows.ids = engine.tokenizer().encode(text, false, &report);
  windows.dropped_bytes = report.dropped_bytes;
  windows.size = options.window;
  windows.first = options.second_half ? std::min(options.window / 2, options.window - 2) : 0;
  windows.count = std::ssize(windows.ids) / options.window;
  if (windows.count == 0)
    refuse("text is too short",
           "at least one window of " + std::to_string(options.window) + " tokens",
           std::ssize(windows.ids));
  if (options.limit > 0) windows.count = std::min(windows.count, options.limit);
  windows.ids.resize(static_cast<std::size_t>(windows.count * windows.size));
  const tokenizer::TokenizerData& data = engine.tokenizer().data();
  if (data.add_bos && data.bos >= 0)
    for (int64_t i = 0; i < windows.count; ++i)
      windows.ids[static_cast<std::size_t>(i * windows.size)] = data.bos;
  return windows;
}

void run_window(Session& session, const Windows& windows, int64_t index, int threads,
                const ScoreFn& score) {
  const auto ids = windows.window(index);
  session.truncate(0);
  // What comes before the first scored position needs no head, and the last token is only a target.
  if (windows.first > 0) session.forward(ids.first(static_cast<std::size_t>(windows.first)));
  const auto scored = ids.subspan(static_cast<std::size_t>(windows.first),
                                  static_cast<std::size_t>(windows.scored()));
  std::vector<float> batch;  // [rows, V]
  int64_t rows = 0;
  int64_t done = 0;
  session.forward_all(scored, [&](int64_t i, std::span<const float> logits) {
    batch.insert(batch.end(), logits.begin(), logits.end());
    ++rows;
    if (rows < kBatch && i + 1 < windows.scored()) return;
    score_batch(batch, std::ssize(logits), done, rows, threads, score);
    done += rows;
    rows = 0;
    batch.clear();
  });
}

}  // namespace crumb::eval
