#include "quant/reconstruct.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "engine/rng.h"
#include "models/errors.h"
#include "quant/parallel.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

using train::BlockWeights;

// What values may travel in all, measured on SmolLM2's blocks at 4 bits (30 to 100 steps): weights
// in steps of the grid or in log, scales in log. LDLQ's solution bears less than nearest's. Half of
// the loss made up for is better than all of it behind LDLQ, which sees to it too (SmolLM2, KL:
// .135, .456, 1.90 instead of .140, .496, 2.39 at 4, 3 and 2 bits).
struct MethodRow {
  Reconstruction method;
  LearnedForm form;
  double weight_travel, scale_travel;
  double shift;
};
constexpr MethodRow kMethods[] = {
    {Reconstruction::kNone, LearnedForm::kMaster, 0, 0, 1},
    {Reconstruction::kFlexRound, LearnedForm::kDivisor, 0.25, 0.25, 1},
    {Reconstruction::kLrq, LearnedForm::kLowRank, 0.25, 0.25, 1},
    {Reconstruction::kBlockAp, LearnedForm::kMaster, 0.4, 0.025, 0.5},
};
const MethodRow& method_of(Reconstruction method) {
  return kMethods[static_cast<std::size_t>(method)];
}

// Gradients are means over hundreds of values, far below 1.
constexpr train::AdamOptions kAdam = {.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-12, .decay = 0};
constexpr double kRateFloor = 0.02;  // of the cosine

int64_t steps_of_epoch(int64_t windows, int64_t batch) { return (windows + batch - 1) / batch; }

// What a window at work needs of its own.
struct Slot {
  Slot(const models::ModelConfig& config, int64_t S)
      : activations(config, S),
        scratch(config, S),
        gradients(train::zero_block(config)),
        y(static_cast<std::size_t>(S * config.dim)) {}
  train::BlockActivations activations, scratch;
  BlockWeights gradients;
  std::vector<float> y;
  double loss = 0;
};

struct Losses {
  double weighted = 0, plain = 0;  // means over tokens
};

class Job {
 public:
  Job(const train::BlockContext& context, const BlockWeights& weights, const BlockStreams& streams,
      int64_t layer, const ReconstructOptions& options, const ProgressFn& progress);
  ReconstructReport run(std::span<MatrixCodes> matrices);

 private:
  std::size_t window_floats() const {
    return static_cast<std::size_t>(context_.S() * context_.config().dim);
  }
  std::span<const float> window(std::span<const float> stream, int64_t index) const {
    return stream.subspan(static_cast<std::size_t>(index) * window_floats(), window_floats());
  }
  void make_targets(const BlockWeights& weights);
  Losses kept_back_losses() const;
  Losses window_losses(std::span<const float> y, int64_t index) const;
  void train_window(int64_t index, int64_t windows, Slot* slot) const;
  double step(std::span<const int64_t> windows, double rate, int64_t t);
  void tell(int64_t done, int64_t total) const;
  std::vector<int64_t> order(int64_t epoch) const;

  const train::BlockContext& context_;
  const BlockStreams& streams_;
  const int64_t layer_;
  const ProgressFn& progress_;
  const int64_t windows_, trained_;  // all, and those that are not kept back
  const ReconstructOptions options_;
  BlockWeights quantized_;            // what the learned matrices amount to
  std::vector<float> targets_;        // [tokens, D]
  std::vector<float> token_weights_;  // [tokens] u_t
  std::vector<std::vector<float> BlockWeights::*> members_;
  std::vector<std::vector<LearnedMatrix>> learned_;  // [members_], by band
  std::vector<Slot> slots_;
};

Job::Job(const train::BlockContext& context, const BlockWeights& weights,
         const BlockStreams& streams, int64_t layer, const ReconstructOptions& options,
         const ProgressFn& progress)
    : context_(context),
      streams_(streams),
      layer_(layer),
      progress_(progress),
      windows_(std::ssize(streams.full) / static_cast<int64_t>(window_floats())),
      trained_(windows_ - options.kept_back),
      options_(with_defaults(options, windows_)),
      quantized_(weights) {
  assert(streams.full.size() == streams.prefix.size());
  tell(0, 1);
  make_targets(weights);
}

void Job::tell(int64_t done, int64_t total) const {
  const std::string item = "block " + std::to_string(layer_);
  if (progress_ && !progress_({"reconstruct", item, done, total})) throw Interrupted{};
}

void Job::make_targets(const BlockWeights& weights) {
  const auto D = static_cast<std::size_t>(context_.config().dim);
  targets_.resize(streams_.full.size());
  token_weights_.assign(targets_.size() / D, 1.0f);
  const auto shift = static_cast<float>(options_.shift);
  parallel_rows(windows_, options_.threads, [&](int64_t begin, int64_t end) {
    train::BlockActivations activations(context_.config(), context_.S());
    std::vector<float> behind(shift < 1 ? window_floats() : 0);
    for (int64_t i = begin; i < end; ++i) {
      const auto target = std::span(targets_).subspan(static_cast<std::size_t>(i) * window_floats(),
                                                      window_floats());
      train::block_forward(context_, weights, window(streams_.full, i), activations, target);
      if (behind.empty()) continue;
      train::block_forward(context_, weights, window(streams_.prefix, i), activations, behind);
      for (std::size_t k = 0; k < behind.size(); ++k)
        target[k] = shift * target[k] + (1 - shift) * behind[k];
    }
  });
  if (!options_.relative) return;
  for (std::size_t t = 0; t < token_weights_.size(); ++t) {
    const double square = train::square_sum(std::span(targets_).subspan(t * D, D));
    if (square > 0) token_weights_[t] = static_cast<float>(static_cast<double>(D) / square);
  }
}

Losses Job::window_losses(std::span<const float> y, int64_t index) const {
  const auto D = static_cast<std::size_t>(context_.config().dim);
  const auto target = window(targets_, index);
  Losses sum;
  for (std::size_t t = 0; t < y.size() / D; ++t) {
    double square = 0;
    for (std::size_t i = t * D; i < (t + 1) * D; ++i) {
      const auto e = static_cast<double>(y[i] - target[i]);
      square += e * e;
    }
    const auto token = static_cast<std::size_t>(index * context_.S()) + t;
    sum.plain += square;
    sum.weighted += square * static_cast<double>(token_weights_[token]);
  }
  const auto values = static_cast<double>(y.size());
  return {sum.weighted / values, sum.plain / values};
}

Losses Job::kept_back_losses() const {
  std::vector<Losses> each(static_cast<std::size_t>(options_.kept_back));
  parallel_rows(options_.kept_back, options_.threads, [&](int64_t begin, int64_t end) {
    train::BlockActivations activations(context_.config(), context_.S());
    std::vector<float> y(window_floats());
    for (int64_t i = begin; i < end; ++i) {
      train::block_forward(context_, quantized_, window(streams_.prefix, trained_ + i), activations,
                           y);
      each[static_cast<std::size_t>(i)] = window_losses(y, trained_ + i);
    }
  });
  Losses mean;
  for (const Losses& one : each) {
    mean.weighted += one.weighted / static_cast<double>(each.size());
    mean.plain += one.plain / static_cast<double>(each.size());
  }
  return mean;
}

// Loss and gradients of one of `windows` windows of a step.
void Job::train_window(int64_t index, int64_t windows, Slot* slot) const {
  const auto D = static_cast<std::size_t>(context_.config().dim);
  const auto x = window(streams_.prefix, index);
  const auto target = window(targets_, index);
  train::block_forward(context_, quantized_, x, slot->activations, slot->y);
  slot->loss = window_losses(slot->y, index).weighted;
  const float factor = 2.0f / static_cast<float>(windows * std::ssize(x));
  for (std::size_t i = 0; i < slot->y.size(); ++i)  // y becomes dL/dy
    slot->y[i] = factor * token_weights_[static_cast<std::size_t>(index * context_.S()) + i / D] *
                 (slot->y[i] - target[i]);
  for (const auto member : members_)
    std::fill((slot->gradients.*member).begin(), (slot->gradients.*member).end(), 0.0f);
  train::block_backward(context_, quantized_, x, slot->activations, slot->y, slot->scratch,
                        slot->gradients, {});
}

// Returns the mean loss of the windows before the step.
double Job::step(std::span<const int64_t> windows, double rate, int64_t t) {
  const int64_t count = std::ssize(windows);
  while (std::ssize(slots_) < count) slots_.emplace_back(context_.config(), context_.S());
  parallel_rows(count, options_.threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      train_window(windows[static_cast<std::size_t>(i)], count,
                   &slots_[static_cast<std::size_t>(i)]);
  });
  const auto weights = train::adam_step(kAdam, t, rate * options_.weight_rate);
  const auto scales = train::adam_step(kAdam, t, rate * options_.scale_rate);
  for (std::size_t m = 0; m < learned_.size(); ++m) {
    auto& sum = slots_[0].gradients.*members_[m];
    parallel_rows(std::ssize(sum), options_.threads, [&](int64_t begin, int64_t end) {
      for (int64_t slot = 1; slot < count; ++slot) {
        const auto& one = slots_[static_cast<std::size_t>(slot)].gradients.*members_[m];
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
          sum[i] += one[i];
      }
    });
    std::span<float> gradient(sum), plain(quantized_.*members_[m]);
    for (LearnedMatrix& band : learned_[m]) {
      const std::size_t size = band.rounded().codes.size();
      band.backward(gradient.first(size), weights, scales, options_.threads);
      band.forward(plain.first(size), options_.threads);
      gradient = gradient.subspan(size);
      plain = plain.subspan(size);
    }
  }
  double loss = 0;
  for (int64_t i = 0; i < count; ++i)
    loss += slots_[static_cast<std::size_t>(i)].loss / static_cast<double>(count);
  if (!std::isfinite(loss))
    throw Error(ExitCode::kNumeric,
                "loss of block " + std::to_string(layer_) +
                    " is not finite (reconstruction, step " + std::to_string(t) + ")",
                "use a smaller learning rate");
  return loss;
}

// A permutation of the windows that are not kept back (Fisher and Yates).
std::vector<int64_t> Job::order(int64_t epoch) const {
  std::vector<int64_t> windows(static_cast<std::size_t>(trained_));
  std::iota(windows.begin(), windows.end(), 0);
  for (int64_t i = trained_ - 1; i > 0; --i) {
    const double draw = uniform(options_.seed, static_cast<uint64_t>(epoch * trained_ + i));
    std::swap(windows[static_cast<std::size_t>(i)],
              windows[static_cast<std::size_t>(draw * static_cast<double>(i + 1))]);
  }
  return windows;
}

ReconstructReport Job::run(std::span<MatrixCodes> matrices) {
  ReconstructReport report;
  report.layer = layer_;
  for (const MatrixCodes& matrix : matrices) {
    members_.push_back(matrix.member);
    std::vector<LearnedMatrix>& bands = learned_.emplace_back();
    std::span<float> rest(quantized_.*matrix.member);
    for (const Rounded& band : matrix.bands) {
      const auto rows = rest.first(band.codes.size());
      bands.emplace_back(rows, matrix.rotation, band, method_of(options_.method).form,
                         options_.threads);
      bands.back().forward(rows, options_.threads);
      rest = rest.subspan(rows.size());
    }
    assert(rest.empty());
  }
  const Losses before = kept_back_losses();
  const int64_t batches = steps_of_epoch(trained_, options_.batch);
  const int64_t total = batches * options_.epochs;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t epoch = 0; epoch < options_.epochs; ++epoch) {
    const auto windows = order(epoch);
    double sum = 0;
    for (int64_t b = 0; b < batches; ++b) {
      tell(report.steps, total);
      const auto first = static_cast<std::size_t>(b * options_.batch);
      const auto size = std::min(windows.size() - first, static_cast<std::size_t>(options_.batch));
      ++report.steps;
      sum += step(std::span(windows).subspan(first, size),
                  train::cosine_schedule(report.steps, total, 0, kRateFloor), report.steps);
    }
    (epoch == 0 ? report.train_start : report.train_end) = sum / static_cast<double>(batches);
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.tokens_per_second =
      static_cast<double>(trained_ * options_.epochs * context_.S()) / report.seconds;
  const Losses after = kept_back_losses();
  report.loss_start = before.weighted;
  report.mse_start = before.plain;
  report.loss_end = after.weighted;
  report.mse_end = after.plain;
  report.improved = after.weighted < before.weighted;
  for (std::size_t m = 0; m < learned_.size(); ++m)
    for (std::size_t b = 0; b < learned_[m].size(); ++b) {
      Rounded& out = matrices[m].bands[b];
      const Rounded& found = learned_[m][b].rounded();
      report.weights += std::ssize(out.codes);
      for (std::size_t i = 0; i < out.codes.size(); ++i)
        report.changed += out.codes[i] != found.codes[i] ? 1 : 0;
      if (report.improved) out = found;
    }
  return report;
}

}  // namespace

ReconstructOptions with_defaults(ReconstructOptions options, int64_t windows) {
  if (options.kept_back < 1 || windows <= options.kept_back)
    throw Error(ExitCode::kUsage,
                "too few calibration windows (reconstruction: expected more than the " +
                    std::to_string(options.kept_back) + " kept back, found " +
                    std::to_string(windows) + ")");
  const MethodRow& method = method_of(options.method);
  const auto steps = static_cast<double>(
      options.epochs * steps_of_epoch(windows - options.kept_back, options.batch));
  if (!(options.weight_rate > 0)) options.weight_rate = method.weight_travel / steps;
  if (!(options.scale_rate > 0)) options.scale_rate = method.scale_travel / steps;
  if (options.shift < 0) options.shift = method.shift;
  return options;
}

int64_t reconstruction_memory(const models::ModelConfig& config, int64_t windows, int64_t S,
                              const ReconstructOptions& options) {
  const int64_t kv = config.kv_heads * config.head_dim, q = config.heads * config.head_dim;
  const int64_t weights = 2 * config.dim * (q + kv) + 3 * config.ffn * config.dim;
  // Masters, codes at the start and now, the quantized block, and: two moments; v0, S2 and two
  // moments; v0 and four times (values, two moments, gradients) of three quarters of the weights at
  // most.
  const LearnedForm form = method_of(options.method).form;
  const int64_t more = form == LearnedForm::kMaster ? 2 : 4;
  const int64_t learned = weights * (4 * (2 + more) + 2);
  const int64_t slot = 4 * (weights + S * (2 * train::activation_floats(config) + config.dim));
  return learned + options.batch * slot + 4 * windows * S * (config.dim + 1);
}

ReconstructReport reconstruct(const train::BlockContext& context, const BlockWeights& weights,
                              const BlockStreams& streams, int64_t layer,
                              const ReconstructOptions& options, std::span<MatrixCodes> matrices,
                              const ProgressFn& progress) {
  assert(options.method != Reconstruction::kNone && options.epochs > 0 && options.batch > 0);
  train::single_threaded_blas();
  return Job(context, weights, streams, layer, options, progress).run(matrices);
}

}  // namespace crumb::quant
