#include "bench/eval/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "bench/eval/scoring.h"
#include "bench/eval/windows.h"
#include "models/errors.h"
#include "models/json.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;

std::unique_ptr<Session> make_session(const Engine& engine, const Windows& windows,
                                      kernels::KvType kv) {
  SessionOptions options;
  options.context = windows.size;
  options.kv = kv;
  return engine.make_session(options);
}

void tell(const ProgressFn& progress, std::string_view stage, const std::string& item, int64_t done,
          int64_t total) {
  if (progress && !progress({stage, item, done, total})) throw Interrupted{};
}

int32_t target_of(const Windows& windows, int64_t window, int64_t i) {
  return windows.window(window)[static_cast<std::size_t>(windows.first + i + 1)];
}

void require_same_vocabulary(const Engine& base, const Engine& model) {
  const auto& a = base.tokenizer().data().tokens;
  const auto& b = model.tokenizer().data().tokens;
  if (a == b && base.config().vocab == model.config().vocab) return;
  throw Error(ExitCode::kUsage,
              "the two models do not have the same vocabulary (base: " + std::to_string(a.size()) +
                  " tokens, model: " + std::to_string(b.size()) + " tokens)",
              "compare a quantized model with the model it was made from");
}

// Means over all scored positions, from one Divergence each.
KlResult summarize(std::span<const Divergence> all) {
  std::vector<double> kld(all.size());
  double nll = 0;
  double nll_base = 0;
  int64_t same = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    kld[i] = all[i].kld;
    nll += all[i].nll_model;
    nll_base += all[i].nll_base;
    same += all[i].same_top ? 1 : 0;
  }
  const auto n = static_cast<double>(all.size());
  KlResult result;
  const Mean mean = mean_of(kld);
  result.mean_kld = mean.mean;
  result.stderr_kld = mean.error;
  std::sort(kld.begin(), kld.end());
  result.median_kld = quantile(kld, 0.5);
  result.kld_p99 = quantile(kld, 0.99);
  result.kld_max = kld.back();
  result.top1 = static_cast<double>(same) / n;
  result.ppl = std::exp(nll / n);
  result.ppl_base = std::exp(nll_base / n);
  result.ppl_ratio = std::exp((nll - nll_base) / n);
  result.tokens = std::ssize(all);
  return result;
}

}  // namespace

PerplexityResult perplexity(const Engine& engine, const std::string& text,
                            const WindowOptions& options, const ProgressFn& progress) {
  const Windows windows = cut_windows(engine, text, options);
  const int threads = engine.thread_plan().threads;
  const auto session = make_session(engine, windows, options.kv);
  const auto scored = static_cast<std::size_t>(windows.scored());
  std::vector<double> nll(scored * static_cast<std::size_t>(windows.count));
  PerplexityResult result;
  double sum = 0;
  std::string item;
  for (int64_t w = 0; w < windows.count; ++w) {
    tell(progress, "perplexity", item, w, windows.count);
    const auto part = std::span(nll).subspan(static_cast<std::size_t>(w) * scored, scored);
    run_window(*session, windows, w, threads, [&](int64_t i, std::span<const float> logits) {
      part[static_cast<std::size_t>(i)] = negative_log_likelihood(logits, target_of(windows, w, i));
    });
    const double mean = mean_of(part).mean;
    result.window_nll.push_back(mean);
    sum += mean;
    item = fmt::format("ppl {:.3f}", std::exp(sum / static_cast<double>(w + 1)));
  }
  tell(progress, "perplexity", item, windows.count, windows.count);
  const Mean mean = mean_of(nll);
  result.nll = mean.mean;
  result.stderr_nll = mean.error;
  result.ppl = std::exp(mean.mean);
  result.tokens = std::ssize(nll);
  result.windows = windows.count;
  result.dropped_bytes = windows.dropped_bytes;
  return result;
}

KlResult kl_divergence(const Engine& base, const Engine& model, const std::string& text,
                       const WindowOptions& options, const ProgressFn& progress) {
  require_same_vocabulary(base, model);
  return kl_divergence(base, model, cut_windows(base, text, options), options.kv, progress);
}

KlResult kl_divergence(const Engine& base, const Engine& model, const Windows& windows,
                       kernels::KvType kv, const ProgressFn& progress) {
  require_same_vocabulary(base, model);
  const int threads = model.thread_plan().threads;
  const auto base_session = make_session(base, windows, kernels::KvType::kF32);
  const auto model_session = make_session(model, windows, kv);
  const auto scored = static_cast<std::size_t>(windows.scored());
  const auto V = static_cast<std::size_t>(base.config().vocab);
  std::vector<float> base_logits(scored * V);  // one window
  std::vector<Divergence> all(scored * static_cast<std::size_t>(windows.count));
  const auto base_row = [&](int64_t i) {
    return std::span(base_logits).subspan(static_cast<std::size_t>(i) * V, V);
  };
  double sum = 0;
  std::string item;
  for (int64_t w = 0; w < windows.count; ++w) {
    tell(progress, "divergence", item, w, windows.count);
    const auto part = std::span(all).subspan(static_cast<std::size_t>(w) * scored, scored);
    run_window(*base_session, windows, w, threads, [&](int64_t i, std::span<const float> logits) {
      std::copy(logits.begin(), logits.end(), base_row(i).begin());
    });
    run_window(*model_session, windows, w, threads, [&](int64_t i, std::span<const float> logits) {
      part[static_cast<std::size_t>(i)] = compare(base_row(i), logits, target_of(windows, w, i));
    });
    for (const Divergence& d : part) sum += d.kld;
    item = fmt::format("KL {:.4f}",
                       sum / static_cast<double>(scored * static_cast<std::size_t>(w + 1)));
  }
  tell(progress, "divergence", item, windows.count, windows.count);
  KlResult result = summarize(all);
  result.windows = windows.count;
  result.dropped_bytes = windows.dropped_bytes;
  return result;
}

std::string to_json(const PerplexityResult& result) {
  const Json json = {{"schema", "crumb.eval.ppl/1"},
                     {"ppl", result.ppl},
                     {"nll", result.nll},
                     {"stderr_nll", result.stderr_nll},
                     {"tokens", result.tokens},
                     {"windows", result.windows},
                     {"dropped_bytes", result.dropped_bytes},
                     {"window_nll", result.window_nll}};
  return json.dump();
}

std::string to_json(const KlResult& result) {
  const Json json = {{"schema", "crumb.eval.kl/1"},
                     {"mean_kld", result.mean_kld},
                     {"stderr_kld", result.stderr_kld},
                     {"median_kld", result.median_kld},
                     {"kld_p99", result.kld_p99},
                     {"kld_max", result.kld_max},
                     {"top1", result.top1},
                     {"ppl", result.ppl},
                     {"ppl_base", result.ppl_base},
                     {"ppl_ratio", result.ppl_ratio},
                     {"tokens", result.tokens},
                     {"windows", result.windows},
                     {"dropped_bytes", result.dropped_bytes}};
  return json.dump();
}

}  // namespace crumb::eval
