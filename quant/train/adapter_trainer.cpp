#include "quant/train/adapter_trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "models/errors.h"
#include "quant/parallel.h"
#include "quant/train/block.h"
#include "quant/train/ops.h"

namespace crumb::quant::train {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

using Member = std::vector<float> BlockWeights::*;
// In the order of AdapterLayout::matrices within a layer.
constexpr std::array<Member, 7> kMembers = {
    &BlockWeights::q,    &BlockWeights::k,  &BlockWeights::v,   &BlockWeights::o,
    &BlockWeights::gate, &BlockWeights::up, &BlockWeights::down};

// -log softmax(z)[label]; z becomes weight * its gradient.
struct TokenResult {
  double loss = 0;
  bool correct = false;
};
TokenResult cross_entropy(std::span<float> z, int32_t label, float weight) {
  const auto top = std::ranges::max_element(z);
  const float most = *top;
  const float own = z[size_of(label)];
  const bool correct = top - z.begin() == label;
  double sum = 0;
  for (float& v : z) {
    v = std::exp(v - most);
    sum += static_cast<double>(v);
  }
  const auto share = static_cast<float>(weight / sum);
  for (float& v : z) v *= share;
  z[size_of(label)] -= weight;
  return {std::log(sum) + static_cast<double>(most) - static_cast<double>(own), correct};
}

class CpuAdapterTrainer final : public AdapterTrainer {
 public:
  CpuAdapterTrainer(const models::SourceModel& decoder, AdapterLayout l, std::vector<float> start,
                    int64_t window, int count);
  AdapterReport step(std::span<const AdapterSample> samples, const AdamStep& projector,
                     const AdamStep& low_rank, double gradient_limit) override;
  AdapterReport evaluate(std::span<const AdapterSample> samples) override {
    return over(samples, nullptr);
  }
  AdapterState state() const override { return {parameters_, mean_, square_}; }
  void set_state(const AdapterState& state) override;

 private:
  models::ModelConfig config_;
  AdapterLayout layout_;
  int64_t S_;
  int threads_;
  BlockContext context_;
  std::vector<float> embedding_, head_, final_norm_;
  std::vector<BlockWeights> frozen_, blocks_;  // as read, and with the changes
  std::vector<float> parameters_, mean_, square_;

  std::span<const float> head_rows() const { return head_.empty() ? embedding_ : head_; }

  // The changes into `blocks_`.
  void merge() {
    parallel_rows(std::ssize(layout_.matrices), threads_, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const AdapterMatrix& m = layout_.matrices[size_of(i)];
        const Member member = kMembers[size_of(i) % kMembers.size()];
        auto& w = blocks_[size_of(m.layer)].*member;
        w = frozen_[size_of(m.layer)].*member;
        add_low_rank(layout_, m, parameters_, w);
      }
    });
  }

  std::vector<float> embed(const AdapterSample& s) const {
    std::vector<float> x;
    for (const int32_t id : s.ids) {
      const auto row = embedding_.begin() + id * config_.dim;
      x.insert(x.end(), row, row + config_.dim);
    }
    if (!s.features.empty())
      std::ranges::copy(project(layout_, parameters_, s.features),
                        x.begin() + s.image_at * config_.dim);
    return x;
  }

  // Sums over the scored tokens; d_hidden (may be empty) gets weight * dL/dhidden.
  AdapterReport losses(const AdapterSample& s, std::span<const float> hidden, float weight,
                       std::span<float> d_hidden) const {
    AdapterReport sums;
    const int64_t D = config_.dim;
    std::vector<float> z(size_of(config_.vocab));
    for (int64_t t = 0; t + 1 < S_; ++t) {
      if (s.scored[size_of(t + 1)] == 0) continue;
      const auto x = hidden.subspan(size_of(t * D), size_of(D));
      linear(x, head_rows(), {}, D, z);
      const TokenResult one = cross_entropy(z, s.ids[size_of(t + 1)], weight);
      sums.loss += one.loss;
      sums.correct += one.correct ? 1 : 0;
      ++sums.tokens;
      if (!d_hidden.empty())
        linear_backward(x, head_rows(), D, z,
                        {d_hidden.subspan(size_of(t * D), size_of(D)), {}, {}});
    }
    return sums;
  }

  // Adds to `gradient` [layout_.size] unless it is empty; `scratch` are blocks_ of gradients.
  AdapterReport window(const AdapterSample& s, float weight, std::vector<BlockWeights>* scratch,
                       std::span<float> gradient) const {
    std::vector<std::vector<float>> inputs = {embed(s)};
    std::vector<BlockActivations> kept;
    for (const BlockWeights& block : blocks_) {
      if (!gradient.empty() || kept.empty()) kept.emplace_back(config_, S_);
      inputs.emplace_back(inputs.back().size());
      block_forward(context_, block, inputs[inputs.size() - 2], kept.back(), inputs.back());
    }
    std::vector<float> hidden(inputs.back().size());
    rmsnorm(inputs.back(), final_norm_, config_.norm_eps, hidden);
    std::vector<float> d_hidden(gradient.empty() ? 0 : hidden.size());
    const AdapterReport sums = losses(s, hidden, weight, d_hidden);
    if (!gradient.empty()) backward(s, inputs, kept, d_hidden, *scratch, gradient);
    return sums;
  }

  void backward(const AdapterSample& s, const std::vector<std::vector<float>>& inputs,
                const std::vector<BlockActivations>& kept, std::span<const float> d_hidden,
                std::vector<BlockWeights>& scratch, std::span<float> gradient) const {
    std::vector<float> dx(d_hidden.size());
    rmsnorm_backward(inputs.back(), final_norm_, config_.norm_eps, d_hidden, dx, {});
    BlockActivations activations(config_, S_);
    for (std::size_t l = blocks_.size(); l-- > 0;) {
      BlockWeights& dw = scratch[l];
      for (const BlockTensor& tensor : block_tensors()) std::ranges::fill(dw.*tensor.member, 0.0f);
      block_backward(context_, blocks_[l], inputs[l], kept[l], dx, activations, dw, dx);
      for (std::size_t i = 0; i < kMembers.size() && !layout_.matrices.empty(); ++i)
        low_rank_backward(layout_, layout_.matrices[l * kMembers.size() + i], parameters_,
                          dw.*kMembers[i], gradient);
    }
    if (s.features.empty()) return;
    const int64_t rows = std::ssize(s.features) / layout_.shape.features, D = config_.dim;
    project_backward(layout_, parameters_, s.features,
                     std::span(dx).subspan(size_of(s.image_at * D), size_of(rows * D)), gradient);
  }

  // Windows side by side, their gradients added in the order of windows.
  AdapterReport over(std::span<const AdapterSample> samples, std::vector<float>* gradient) const {
    const auto scored = static_cast<double>(require_lawful(samples, config_, layout_, S_));
    const auto weight = static_cast<float>(1.0 / scored);
    const int64_t count = std::ssize(samples);
    const int64_t at_once = std::min<int64_t>(resolve_threads(threads_), count);
    std::vector<std::vector<BlockWeights>> scratch(size_of(gradient != nullptr ? at_once : 0));
    for (auto& one : scratch)
      for (int64_t l = 0; l < config_.layers; ++l) one.push_back(zero_block(config_, l));
    AdapterReport sums;
    for (int64_t first = 0; first < count; first += at_once) {
      const int64_t n = std::min(at_once, count - first);
      std::vector<AdapterReport> reports(size_of(n));
      std::vector<std::vector<float>> gradients(size_of(gradient != nullptr ? n : 0),
                                                std::vector<float>(size_of(layout_.size)));
      parallel_rows(n, static_cast<int>(n), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          reports[size_of(i)] = gradient == nullptr
                                    ? window(samples[size_of(first + i)], weight, nullptr, {})
                                    : window(samples[size_of(first + i)], weight,
                                             &scratch[size_of(i)], gradients[size_of(i)]);
      });
      for (const AdapterReport& one : reports) {
        sums.loss += one.loss;
        sums.correct += one.correct;
        sums.tokens += one.tokens;
      }
      for (const auto& one : gradients)
        std::transform(one.begin(), one.end(), gradient->begin(), gradient->begin(), std::plus<>());
    }
    sums.loss /= static_cast<double>(sums.tokens);
    sums.correct /= static_cast<double>(sums.tokens);
    return sums;
  }
};

CpuAdapterTrainer::CpuAdapterTrainer(const models::SourceModel& decoder, AdapterLayout l,
                                     std::vector<float> start, int64_t window, int count)
    : config_(decoder.config),
      layout_(std::move(l)),
      S_(window),
      threads_(count),
      context_(config_, window),
      parameters_(std::move(start)),
      mean_(parameters_.size()),
      square_(parameters_.size()) {
  const auto read = [&](const char* name, int64_t n) {
    std::vector<float> values(size_of(n));
    decoder.read(name, values);
    return values;
  };
  embedding_ = read("model.embed_tokens", config_.vocab * config_.dim);
  if (!config_.tied_head) head_ = read("lm_head", config_.vocab * config_.dim);
  final_norm_ = read("model.norm.weight", config_.dim);
  for (int64_t layer = 0; layer < config_.layers; ++layer)
    frozen_.push_back(read_block(decoder, layer));
  blocks_ = frozen_;
  merge();
}

AdapterReport CpuAdapterTrainer::step(std::span<const AdapterSample> samples,
                                      const AdamStep& projector, const AdamStep& low_rank,
                                      double gradient_limit) {
  std::vector<float> gradient(size_of(layout_.size));
  AdapterReport report = over(samples, &gradient);
  const double squares = square_sum(gradient);
  report.gradient_norm = std::sqrt(squares);
  if (!std::isfinite(report.loss) || !std::isfinite(squares))
    throw Error(ExitCode::kNumeric, "training diverged (loss " + std::to_string(report.loss) + ")",
                "use a lower learning rate");
  const auto factor = static_cast<float>(clip_factor(squares, gradient_limit));
  const auto update = [&](const AdamStep& how, int64_t from, int64_t to) {
    const auto part = [&](std::vector<float>& all) {
      return std::span(all).subspan(size_of(from), size_of(to - from));
    };
    adam(how, part(gradient), factor, part(parameters_), part(mean_), part(square_));
  };
  update(projector, 0, layout_.projector);
  update(low_rank, layout_.projector, layout_.size);
  merge();
  return report;
}

void CpuAdapterTrainer::set_state(const AdapterState& state) {
  parameters_ = state.parameters;
  mean_ = state.mean;
  square_ = state.square;
  merge();
}

}  // namespace

int64_t require_lawful(std::span<const AdapterSample> samples, const models::ModelConfig& decoder,
                       const AdapterLayout& layout, int64_t S) {
  int64_t scored = 0;
  for (const AdapterSample& s : samples) {
    const int64_t rows = std::ssize(s.features) / layout.shape.features;
    const bool ids =
        std::ranges::all_of(s.ids, [&](int32_t id) { return id >= 0 && id < decoder.vocab; });
    if (std::ssize(s.ids) != S || std::ssize(s.scored) != S || !ids ||
        rows * layout.shape.features != std::ssize(s.features) || s.image_at < 0 ||
        s.image_at + rows > S)
      throw Error(ExitCode::kUsage, "training sample (expected " + std::to_string(S) +
                                        " ids of the vocabulary and whole rows of an image "
                                        "within them)");
    scored += std::count(s.scored.begin() + 1, s.scored.end(), uint8_t{1});
  }
  if (scored == 0) throw Error(ExitCode::kUsage, "training samples (no token is scored)");
  return scored;
}

std::unique_ptr<AdapterTrainer> make_cpu_adapter_trainer(const models::SourceModel& decoder,
                                                         AdapterLayout layout,
                                                         std::vector<float> start, int64_t S,
                                                         int threads) {
  single_threaded_blas();
  return std::make_unique<CpuAdapterTrainer>(decoder, std::move(layout), std::move(start), S,
                                             threads);
}

}  // namespace crumb::quant::train
