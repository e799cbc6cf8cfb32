// Perplexity and divergence over windows of a text, and raw logits for anybody's check.
#pragma once
#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/progress.h"

namespace crumb::eval {

struct WindowOptions {
  int64_t window = 512;      // tokens, no overlap, no BOS unless the model adds one
  bool second_half = true;   // score the second half of each window only; false: every position but the first
  int64_t limit = 0;         // first N windows, 0 = all
  kernels::KvType kv = kernels::KvType::kI8;
};

struct PerplexityResult {
  double ppl = 0, nll = 0, stderr_nll = 0;  // nll: mean negative log-likelihood a token, nats
  int64_t tokens = 0, windows = 0;
  std::vector<double> window_nll;           // mean of each window
};
PerplexityResult perplexity(const Engine& engine, const std::string& text, const WindowOptions& options,
                            const ProgressFn& progress);

struct KlResult {
  double mean_kld = 0, stderr_kld = 0, median_kld = 0, kld_p99 = 0, kld_max = 0;  // KL(base || model), nats
  double top1 = 0;                       // share of positions with the same most likely token
  double ppl = 0, ppl_base = 0, ppl_ratio = 0;
  int64_t tokens = 0, windows = 0;
};
// Both models read the same windows, the base in its own session (f32 KV for an f32 base).
KlResult kl_divergence(const Engine& base, const Engine& model, const std::string& text,
                       const WindowOptions& options, const ProgressFn& progress);

// JSONL in: {"id", "ids"}. JSONL out, per line: {"id", "top_ids": [[..]], "top_logits": [[..]], "lse": [..]}
// for every position, `top` entries each. Throws FormatError naming the line.
void write_logits(const Engine& engine, const std::string& input_path, const std::string& output_path, int top,
                  kernels::KvType kv, const ProgressFn& progress);

}  // namespace crumb::eval
