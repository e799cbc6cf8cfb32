// How a long job tells where it is; apps draw it.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

namespace crumb {

struct Progress {
  std::string_view stage;  // "quantize", "perplexity"
  std::string_view item;   // tensor or window at hand, may be empty
  int64_t done = 0;
  int64_t total = 0;
};
// Called between units of work; returning false asks the job to stop (it throws Interrupted).
using ProgressFn = std::function<bool(const Progress&)>;

struct Interrupted {};

}  // namespace crumb
