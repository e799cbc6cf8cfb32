// Perplexity and divergence over windows of a text, and raw logits for anybody's check.
//
// The text is tokenised once (special tokens are plain text) and cut into windows of `window`
// tokens without overlap; an incomplete last one is dropped. Every window starts from an empty
// cache. The logits at position p predict the token at p + 1, so scored are
//   second_half   positions window/2 .. window - 2 (tokens window/2 + 1 .. window - 1), what
//                 llama-perplexity -c WINDOW scores: 255 tokens of a window of 512
//   otherwise     positions 0 .. window - 2
// If the model adds a BOS token, it replaces the first token of every window (also as
// llama-perplexity).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/progress.h"

namespace crumb::eval {

struct WindowOptions {
  int64_t window = 512;     // tokens, at least 2 and at most the model's context
  bool second_half = true;  // false: every position but the last
  int64_t limit = 0;        // first N windows, 0 = all
  kernels::KvType kv = kernels::KvType::kI8;
};

// Standard errors are those of a mean over tokens taken as independent: sd / sqrt(tokens), 0 for
// one.
struct PerplexityResult {
  double ppl = 0, nll = 0, stderr_nll = 0;  // nll: mean negative log-likelihood a token, nats
  int64_t tokens = 0, windows = 0;          // scored
  int64_t dropped_bytes = 0;                // of the text, that the vocabulary could not hold
  std::vector<double> window_nll;           // mean of each window
};
// Throws Error: kUsage (window or limit out of range, text shorter than one window), those of
// Session; Interrupted. The result does not depend on the number of threads.
PerplexityResult perplexity(const Engine& engine, const std::string& text,
                            const WindowOptions& options, const ProgressFn& progress);

// Quantiles interpolate linearly between the sorted values at rank q * (tokens - 1).
struct KlResult {
  double mean_kld = 0, stderr_kld = 0, median_kld = 0, kld_p99 = 0,
         kld_max = 0;  // KL(base || model), nats
  double top1 = 0;     // share of positions with the same most likely token (lowest id on ties)
  double ppl = 0, ppl_base = 0, ppl_ratio = 0;
  int64_t tokens = 0, windows = 0;
  int64_t dropped_bytes = 0;
};
// Both models read the same windows, the base with an f32 KV cache, the model with options.kv.
// Memory: the base's scored logits of one window. Throws as perplexity(), and Error(kUsage) if the
// vocabularies differ.
KlResult kl_divergence(const Engine& base, const Engine& model, const std::string& text,
                       const WindowOptions& options, const ProgressFn& progress);

// JSON text, one object. {"schema":"crumb.eval.ppl/1", ppl, nll, stderr_nll, tokens, windows,
// dropped_bytes, window_nll} and {"schema":"crumb.eval.kl/1", mean_kld, stderr_kld, median_kld,
// kld_p99, kld_max, top1, ppl, ppl_base, ppl_ratio, tokens, windows, dropped_bytes}.
std::string to_json(const PerplexityResult& result);
std::string to_json(const KlResult& result);

// JSONL in: {"id": text, "ids": [tokens]} a line, other fields are ignored. JSONL out, per line:
// {"id", "top_ids": [[..]], "top_logits": [[..]], "lse": [..], "mean_nll"} for every position,
// `top` entries each, largest logit first, the lower id first on ties; lse = log sum exp(logit) in
// double; mean_nll of the line's tokens 1.. (null for one token). The whole input is checked before
// the first token runs; the output appears atomically. Throws FormatError naming the line,
// Error(kUsage) for `top` outside 1..V.
void write_logits(const Engine& engine, const std::string& input_path,
                  const std::string& output_path, int top, kernels::KvType kv,
                  const ProgressFn& progress);

// The same input. JSONL out, per line: {"id", "log_p": [..], "greedy": [..]}: of every token from
// the second on its log P in nats, and 1 if it is the likeliest (the lowest id of equals). Throws
// as write_logits.
void write_log_probabilities(const Engine& engine, const std::string& input_path,
                             const std::string& output_path, kernels::KvType kv,
                             const ProgressFn& progress);

}  // namespace crumb::eval
