// A text cut into windows, and the logits of a window's scored positions.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/eval/perplexity.h"

namespace crumb::eval {

struct Windows {
  std::vector<int32_t> ids;  // [count * size]
  int64_t size = 0;          // tokens of a window
  int64_t count = 0;
  int64_t first = 0;  // first scored position; the last one is size - 2
  int64_t dropped_bytes = 0;

  int64_t scored() const { return size - 1 - first; }  // positions of a window
  std::span<const int32_t> window(int64_t i) const {
    return std::span(ids).subspan(static_cast<std::size_t>(i * size),
                                  static_cast<std::size_t>(size));
  }
};

// Throws Error(kUsage): window or limit out of range, text shorter than one window.
Windows cut_windows(const Engine& engine, const std::string& text, const WindowOptions& options);

// Runs one window from an empty cache. `score(i, logits [V])` is called once for each scored
// position windows.first + i, i in [0, scored()), from several threads at once; logits live for the
// call.
using ScoreFn = std::function<void(int64_t i, std::span<const float> logits)>;
void run_window(Session& session, const Windows& windows, int64_t index, int threads,
                const ScoreFn& score);

// kl_divergence (bench/eval/perplexity.h) over windows that are cut already.
KlResult kl_divergence(const Engine& base, const Engine& model, const Windows& windows,
                       kernels::KvType kv, const ProgressFn& progress);

}  // namespace crumb::eval
