#include "quant/train/cpu_distiller.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <functional>
#include <string>

#include "models/errors.h"
#include "quant/parallel.h"
#include "quant/rotation.h"
#include "quant/train/block.h"
#include "quant/train/fake_quant.h"
#include "quant/train/noise.h"
#include "quant/train/ops.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t kChunk = 64;  // tokens whose logits are held at a time

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// The matrices of a block in the order of matrix_parts(), and their biases.
using Member = std::vector<float> BlockWeights::*;
constexpr std::array<Member, 7> kMembers = {
    &BlockWeights::q,    &BlockWeights::k,  &BlockWeights::v,   &BlockWeights::o,
    &BlockWeights::gate, &BlockWeights::up, &BlockWeights::down};
constexpr std::array<Member, 3> kBiases = {&BlockWeights::q_bias, &BlockWeights::k_bias,
                                           &BlockWeights::v_bias};

// Everything of a float model but its blocks.
struct Ends {
  std::vector<float> embedding, head, final_norm;  // [V, D], empty if tied, [D]
  std::span<const float> head_rows() const { return head.empty() ? embedding : head; }
};
Ends read_ends(const models::SourceModel& source) {
  const models::ModelConfig& c = source.config;
  Ends ends;
  ends.embedding.resize(size_of(c.vocab * c.dim));
  source.read("model.embed_tokens", ends.embedding);
  if (!c.tied_head) {
    ends.head.resize(ends.embedding.size());
    source.read("lm_head", ends.head);
  }
  ends.final_norm.resize(size_of(c.dim));
  source.read("model.norm.weight", ends.final_norm);
  return ends;
}

// Of one window, in the form of the model.
struct WindowGradient {
  std::vector<BlockWeights> blocks;
  std::vector<float> final_norm;
  std::vector<float> embedding;   // [V, D], empty if it is frozen
  std::vector<double> log_alpha;  // of quantized inputs
};

void clear(WindowGradient& gradient, const models::ModelConfig& config) {
  gradient.blocks.resize(size_of(config.layers));
  for (BlockWeights& block : gradient.blocks)
    for (const BlockTensor& tensor : block_tensors())
      std::fill((block.*tensor.member).begin(), (block.*tensor.member).end(), 0.0f);
  gradient.final_norm.assign(size_of(config.dim), 0.0f);
  std::fill(gradient.embedding.begin(), gradient.embedding.end(), 0.0f);
  gradient.log_alpha.assign(size_of(config.layers) * kLinearInputs.size(), 0.0);
}

class CpuDistiller final : public Distiller {
 public:
  CpuDistiller(const models::SourceModel& teacher, const models::SourceModel& student_source,
               const Student& student, int64_t S, CpuOptions options);
  StepReport step(std::span<const int32_t> ids, const StepOptions& options) override;
  StepReport evaluate(std::span<const int32_t> ids, const LossOptions& loss) override;
  int64_t changed_codes() override;
  TrainingState state() const override { return state_; }
  const TrainingState* host_state() const override { return &state_; }
  void set_state(const TrainingState& state) override;

 private:
  // Refreshes the student's blocks from its parameters, rounded, or noisy if noise is on.
  void quantize_all();
  void round_part(std::size_t i, std::span<float> w);
  NoisyMatrix noisy_part(std::size_t i) const;
  // Part i's weights in plain space, where the forward pass reads them.
  std::vector<float>& weights_of(std::size_t i) {
    return is_embedding(i) ? student_ends_.embedding
                           : student_[i / kMembers.size()].*kMembers[i % kMembers.size()];
  }
  bool is_embedding(std::size_t i) const { return i == student_.size() * kMembers.size(); }
  bool is_noisy() const { return noise_ != nullptr && noise_->on; }
  void begin_noise();
  void step_noise(StepReport& report);
  std::vector<BlockInputs> block_inputs(int64_t token) const;
  void fit_inputs(std::span<const int32_t> ids, int bits);
  void add_gradient(const WindowGradient& window);
  void quantize_backward_all();
  void optimise(const StepOptions& options, float factor);
  void muon_masters(const MuonStep& step, float gradient_factor);
  void ask() const;  // whether to go on: throws Interrupted
  void block_done() const;
  std::vector<float> embed(const Ends& ends, std::span<const int32_t> ids) const;
  // `token`: number of the window's first in the step. `gradient` may be null.
  StepReport window(std::span<const int32_t> ids, int64_t token, const LossOptions& loss,
                    float weight, WindowGradient* gradient) const;
  StepReport losses(std::span<const float> teacher_hidden, std::span<const float> hidden,
                    std::span<const int32_t> ids, const LossOptions& loss, float weight,
                    std::span<float> d_hidden, std::span<float> d_head) const;
  void backward(const std::vector<std::vector<float>>& inputs,
                const std::vector<BlockActivations>& kept, std::span<const float> d_hidden,
                std::span<const int32_t> ids, std::vector<BlockInputs>& quantized,
                WindowGradient& gradient) const;
  StepReport over_windows(std::span<const int32_t> ids, const LossOptions& loss, bool gradient);
  StepReport own_windows(std::span<const int32_t> ids, int64_t token, const LossOptions& loss,
                         float weight, bool gradient);

  models::ModelConfig config_;
  int64_t S_;
  CpuOptions options_;
  models::Rotation rotation_;
  ParameterLayout layout_;
  std::vector<MatrixPart> parts_;
  std::vector<MatrixForm> start_forms_;
  std::vector<std::vector<uint8_t>> zeros_;  // of the parts: zero points of the asym grid
  BlockContext context_;
  Ends teacher_ends_, student_ends_;
  std::vector<BlockWeights> teacher_, student_;
  std::vector<WindowGradient> gradients_;  // one a thread
  std::vector<FakeQuant> quants_;          // by part
  std::vector<float> flat_gradients_;
  std::vector<double> d_bits_, d_log_alpha_;     // by part, by input of a block
  std::vector<std::vector<uint8_t>> old_codes_;  // by part
  TrainingState state_;
  const NoiseStep* noise_ = nullptr;  // of the step at hand
  // Of the step or evaluation at hand, in blocks.
  mutable std::atomic<int64_t> done_ = 0;
  int64_t total_ = 0;
  const char* stage_ = "step";
};

CpuDistiller::CpuDistiller(const models::SourceModel& teacher,
                           const models::SourceModel& student_source, const Student& student,
                           int64_t S, CpuOptions options)
    : config_(student.config),
      S_(S),
      options_(std::move(options)),
      rotation_(student.rotation),
      layout_(student.layout),
      parts_(student.parts),
      start_forms_(student.forms),
      zeros_(student.zeros),
      context_(config_, S),
      teacher_ends_(read_ends(teacher)),
      student_ends_(read_ends(student_source)),
      flat_gradients_(size_of(layout_.size)),
      state_{student.parameters, std::vector<float>(size_of(layout_.size)),
             std::vector<float>(size_of(layout_.size))} {
  // The teacher of a pruned student is whole.
  for (int64_t l = 0; l < teacher.config.layers; ++l) teacher_.push_back(read_block(teacher, l));
  for (int64_t l = 0; l < config_.layers; ++l) student_.push_back(zero_block(config_, l));
  quants_.resize(parts_.size());
  d_bits_.resize(parts_.size());
  changed_codes();
}

void CpuDistiller::round_part(std::size_t i, std::span<float> w) {
  const MatrixPart& part = parts_[i];
  const auto [form, log_factor] = rounding_form(start_forms_[i], state_.widths, i);
  FakeQuant& quant = quants_[i];
  if (quant.rounded.bits != form.bits) {
    quant.rounded =
        make_rounded(part.N, part.K, form.bits, part.groups == 1 ? 0 : layout_.group, form.grid);
    quant.rounded.zeros = zeros_[i];
    // Any scale but 0, which would stay.
    std::fill(quant.rounded.scales.begin(), quant.rounded.scales.end(), uint16_t{0x3c00});
  }
  const float* p = state_.parameters.data();
  quant.master.assign(p + part.master_at, p + part.master_at + part.N * part.K);
  quant.log_scale.assign(p + part.scale_at, p + part.scale_at + part.N * part.groups);
  for (float& a : quant.log_scale) a += log_factor;
  fake_quantize(&quant, w, options_.threads);
}

NoisyMatrix CpuDistiller::noisy_part(std::size_t i) const {
  const MatrixPart& part = parts_[i];
  const auto of = [&](int64_t at, int64_t n) {
    return std::span(state_.parameters).subspan(size_of(at), size_of(n));
  };
  const MatrixForm& form = start_forms_[i];
  return {of(part.master_at, part.N * part.K),
          of(part.scale_at, part.N),
          part.K,
          form.grid,
          form.bits,
          noise_width(*noise_, state_.widths, form, i),
          noise_->seed,
          static_cast<uint64_t>(part.master_at)};
}

void CpuDistiller::quantize_all() {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const MatrixPart& part = parts_[i];
    const float* p = state_.parameters.data();
    std::vector<float>& w = weights_of(i);
    if (is_noisy())
      noisy_weights(noisy_part(i), w);
    else
      round_part(i, w);
    if (rotation_.hadamard != 0) unrotate_rows(w, part.K, rotation_, options_.threads);
    if (part.bias_at >= 0)
      (student_[i / kMembers.size()].*kBiases.at(i % kMembers.size()))
          .assign(p + part.bias_at, p + part.bias_at + part.N);
  }
  for (std::size_t l = 0; l < student_.size(); ++l) {
    const auto norm = [&](std::size_t index, std::vector<float>& gain) {
      const auto at =
          state_.parameters.begin() + layout_.norm_at(static_cast<int64_t>(index), config_.dim);
      gain.assign(at, at + config_.dim);
    };
    norm(2 * l, student_[l].attn_norm);
    norm(2 * l + 1, student_[l].mlp_norm);
    norm(2 * student_.size(), student_ends_.final_norm);
  }
}

// The sums of masters, norms and biases: dL/dW in plain space, until quantize_backward_all().
void CpuDistiller::add_gradient(const WindowGradient& window) {
  const auto put = [&](std::span<const float> from, int64_t at) {
    const auto to = flat_gradients_.begin() + at;
    std::transform(from.begin(), from.end(), to, to, std::plus<>());
  };
  const auto blocks = std::ssize(window.blocks);
  parallel_rows(blocks, options_.threads, [&](int64_t begin, int64_t end) {
    for (std::size_t i = size_of(begin) * kMembers.size(); i < size_of(end) * kMembers.size();
         ++i) {
      const BlockWeights& block = window.blocks[i / kMembers.size()];
      put(block.*kMembers[i % kMembers.size()], parts_[i].master_at);
      if (parts_[i].bias_at >= 0) put(block.*kBiases.at(i % kMembers.size()), parts_[i].bias_at);
    }
  });
  for (int64_t l = 0; l < blocks; ++l) {
    put(window.blocks[size_of(l)].attn_norm, layout_.norm_at(2 * l, config_.dim));
    put(window.blocks[size_of(l)].mlp_norm, layout_.norm_at(2 * l + 1, config_.dim));
  }
  put(window.final_norm, layout_.norm_at(2 * blocks, config_.dim));
  if (layout_.embedding) put(window.embedding, layout_.embedding->master_at);
  for (std::size_t i = 0; i < d_log_alpha_.size(); ++i) d_log_alpha_[i] += window.log_alpha[i];
}

void CpuDistiller::quantize_backward_all() {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const MatrixPart& part = parts_[i];
    const auto g =
        std::span(flat_gradients_).subspan(size_of(part.master_at), size_of(part.N * part.K));
    if (rotation_.hadamard != 0) rotate_rows(g, part.K, rotation_, options_.threads);
    const auto d_scale =
        std::span(flat_gradients_).subspan(size_of(part.scale_at), size_of(part.N * part.groups));
    if (is_noisy())
      d_bits_[i] = noisy_weights_backward(noisy_part(i), g, g, d_scale);
    else
      fake_quantize_backward(quants_[i], g, g, d_scale, options_.threads);
  }
}

void CpuDistiller::ask() const {
  if (options_.progress && !options_.progress({stage_, "", done_, total_})) throw Interrupted{};
}

// After a block of a window went forward or backward.
void CpuDistiller::block_done() const {
  ++done_;
  ask();
}

std::vector<float> CpuDistiller::embed(const Ends& ends, std::span<const int32_t> ids) const {
  std::vector<float> x;
  for (const int32_t id : ids) {
    if (id < 0 || id >= config_.vocab)
      throw FormatError("token id (training data: expected less than " +
                        std::to_string(config_.vocab) + ", found " + std::to_string(id) + ")");
    const auto row = ends.embedding.begin() + id * config_.dim;
    x.insert(x.end(), row, row + config_.dim);
  }
  return x;
}

StepReport CpuDistiller::losses(std::span<const float> teacher_hidden,
                                std::span<const float> hidden, std::span<const int32_t> ids,
                                const LossOptions& loss, float weight, std::span<float> d_hidden,
                                std::span<float> d_head) const {
  const int64_t D = config_.dim, V = config_.vocab;
  StepReport sums;
  std::vector<float> p, q, d;
  for (int64_t t = 0; t < S_; t += kChunk) {
    ask();  // a chunk of the head is as much work as a block
    const int64_t n = std::min(kChunk, S_ - t);
    p.resize(size_of(n * V));
    q.resize(p.size());
    d.assign(d_hidden.empty() ? 0 : p.size(), 0.0f);
    const auto rows = [&](std::span<const float> x) {
      return x.subspan(size_of(t * D), size_of(n * D));
    };
    linear(rows(teacher_hidden), teacher_ends_.head_rows(), {}, D, p);
    linear(rows(hidden), student_ends_.head_rows(), {}, D, q);
    for (int64_t i = 0; i < n; ++i) {
      const bool labelled = t + i + 1 < S_;
      // The last token of a window has no label, but still a KL divergence.
      const bool counts = loss.kind != LossKind::kCrossEntropy || labelled;
      const auto row = [&](auto& values) {
        return values.empty() ? std::span<float>{}
                              : std::span(values).subspan(size_of(i * V), size_of(V));
      };
      const TokenLoss one =
          distill_loss(loss, row(p), row(q), labelled ? ids[size_of(t + i + 1)] : 0,
                       counts ? weight : 0.0f, row(d));
      sums.loss += counts ? one.loss : 0.0;
      sums.kl += one.kl;
      sums.top1 += one.agree ? 1 : 0;
    }
    if (!d_hidden.empty())
      linear_backward(rows(hidden), student_ends_.head_rows(), D, d,
                      {d_hidden.subspan(size_of(t * D), size_of(n * D)), d_head, {}});
  }
  return sums;
}

// Of the window that starts at this token of the step; empty if inputs are not quantized.
std::vector<BlockInputs> CpuDistiller::block_inputs(int64_t token) const {
  std::vector<BlockInputs> inputs;
  if (state_.inputs.log_alpha.empty()) return inputs;
  for (int64_t l = 0; l < config_.layers; ++l) {
    BlockInputs& block = inputs.emplace_back();
    const BlockShape shape = shape_of(config_, student_[size_of(l)]);
    for (const LinearInput input : kLinearInputs) {
      const auto i = static_cast<std::size_t>(input);
      block.quant[i] = input_quant(state_.inputs, l, i, is_noisy(), is_noisy() ? noise_->seed : 0,
                                   token, linear_input_width(shape, input));
    }
  }
  return inputs;
}

// Truncations from the student's inputs in one window.
void CpuDistiller::fit_inputs(std::span<const int32_t> ids, int bits) {
  LearnedInputs& inputs = state_.inputs;
  inputs.bits = bits;
  BlockActivations activations(config_, S_);
  std::vector<float> x = embed(student_ends_, ids);
  for (const BlockWeights& block : student_) {
    block_forward(context_, block, x, activations, x);
    for (const LinearInput input : kLinearInputs)
      inputs.log_alpha.push_back(fitted_log_alpha(linear_input(activations, input), bits));
  }
  inputs.mean.resize(inputs.log_alpha.size());
  inputs.square.resize(inputs.log_alpha.size());
}

StepReport CpuDistiller::window(std::span<const int32_t> ids, int64_t token,
                                const LossOptions& loss, float weight,
                                WindowGradient* gradient) const {
  const auto finish = [&](const Ends& ends, std::span<const float> x) {
    std::vector<float> hidden(x.size());
    rmsnorm(x, ends.final_norm, config_.norm_eps, hidden);
    return hidden;
  };
  BlockActivations scratch(config_, S_);
  std::vector<float> x = embed(teacher_ends_, ids);
  for (const BlockWeights& block : teacher_) {
    block_forward(context_, block, x, scratch, x);
    block_done();
  }
  const std::vector<float> teacher_hidden = finish(teacher_ends_, x);
  std::vector<std::vector<float>> inputs = {embed(student_ends_, ids)};
  std::vector<BlockActivations> kept;
  std::vector<BlockInputs> quantized = block_inputs(token);
  for (std::size_t l = 0; l < student_.size(); ++l) {
    if (gradient != nullptr || kept.empty()) kept.emplace_back(config_, S_);
    inputs.emplace_back(inputs[l].size());
    block_forward(context_, student_[l], inputs[l], kept.back(), inputs[l + 1],
                  quantized.empty() ? nullptr : &quantized[l]);
    block_done();
  }
  const std::vector<float> hidden = finish(student_ends_, inputs.back());
  std::vector<float> d_hidden(gradient != nullptr ? hidden.size() : 0);
  const StepReport sums =
      losses(teacher_hidden, hidden, ids, loss, weight, d_hidden,
             gradient != nullptr ? std::span<float>(gradient->embedding) : std::span<float>{});
  if (gradient != nullptr) backward(inputs, kept, d_hidden, ids, quantized, *gradient);
  return sums;
}

void CpuDistiller::backward(const std::vector<std::vector<float>>& inputs,
                            const std::vector<BlockActivations>& kept,
                            std::span<const float> d_hidden, std::span<const int32_t> ids,
                            std::vector<BlockInputs>& quantized, WindowGradient& gradient) const {
  std::vector<float> dx(d_hidden.size());
  rmsnorm_backward(inputs.back(), student_ends_.final_norm, config_.norm_eps, d_hidden, dx,
                   gradient.final_norm);
  BlockActivations scratch(config_, S_);
  for (std::size_t l = student_.size(); l-- > 0;) {
    BlockInputs* quant = quantized.empty() ? nullptr : &quantized[l];
    block_backward(context_, student_[l], inputs[l], kept[l], dx, scratch, gradient.blocks[l], dx,
                   quant);
    for (std::size_t i = 0; quant != nullptr && i < quant->d_log_alpha.size(); ++i)
      gradient.log_alpha[kLinearInputs.size() * l + i] = quant->d_log_alpha[i];
    block_done();
  }
  if (gradient.embedding.empty()) return;
  for (std::size_t t = 0; t < ids.size(); ++t)  // of the rows that were looked up
    for (int64_t d = 0; d < config_.dim; ++d)
      gradient.embedding[size_of(ids[t] * config_.dim + d)] +=
          dx[t * size_of(config_.dim) + size_of(d)];
}

// Sums over the windows that are this process's.
StepReport CpuDistiller::own_windows(std::span<const int32_t> ids, int64_t token,
                                     const LossOptions& loss, float weight, bool gradient) {
  const int64_t windows = std::ssize(ids) / S_;
  const int64_t at_once = std::min<int64_t>(resolve_threads(options_.threads), windows);
  if (gradient && std::ssize(gradients_) < at_once) {
    gradients_.resize(size_of(at_once));
    for (WindowGradient& one : gradients_) {
      for (int64_t l = std::ssize(one.blocks); l < config_.layers; ++l)
        one.blocks.push_back(zero_block(config_, l));
      if (layout_.embedding) one.embedding.resize(size_of(config_.vocab * config_.dim));
    }
  }
  StepReport sums;
  std::vector<StepReport> reports(size_of(at_once));
  for (int64_t first = 0; first < windows; first += at_once) {
    const int64_t n = std::min(at_once, windows - first);
    parallel_rows(n, static_cast<int>(n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        WindowGradient* own = gradient ? &gradients_[size_of(i)] : nullptr;
        if (own != nullptr) clear(*own, config_);
        reports[size_of(i)] = window(ids.subspan(size_of((first + i) * S_), size_of(S_)),
                                     token + (first + i) * S_, loss, weight, own);
      }
    });
    for (std::size_t i = 0; i < size_of(n); ++i) {
      sums.loss += reports[i].loss;
      sums.kl += reports[i].kl;
      sums.top1 += reports[i].top1;
      if (gradient) add_gradient(gradients_[i]);
    }
  }
  return sums;
}

StepReport CpuDistiller::over_windows(std::span<const int32_t> ids, const LossOptions& loss,
                                      bool gradient) {
  const int64_t members = options_.group == nullptr ? 1 : options_.group->size();
  if (ids.empty() || std::ssize(ids) % (members * S_) != 0)
    throw Error(ExitCode::kUsage, "training tokens (expected a multiple of " +
                                      std::to_string(members * S_) + ", found " +
                                      std::to_string(ids.size()) + ")");
  quantize_all();
  if (noise_ != nullptr && noise_->input_bits != 0 && state_.inputs.log_alpha.empty())
    fit_inputs(ids.first(size_of(S_)), noise_->input_bits);
  d_log_alpha_.assign(state_.inputs.log_alpha.size(), 0.0);
  const auto tokens = static_cast<double>(ids.size());
  const auto weight = static_cast<float>(1.0 / tokens);
  const std::size_t own = ids.size() / size_of(members);
  stage_ = gradient ? "step" : "kept back";
  done_ = 0;
  const auto blocks = std::ssize(teacher_) + (gradient ? 2 : 1) * std::ssize(student_);
  total_ = static_cast<int64_t>(own) / S_ * blocks;
  StepReport sums;
  if (options_.group == nullptr) {
    sums = own_windows(ids, 0, loss, weight, gradient);
  } else {
    double interrupted = 0;
    try {
      const std::size_t from = size_of(options_.group->rank()) * own;
      sums =
          own_windows(ids.subspan(from, own), static_cast<int64_t>(from), loss, weight, gradient);
    } catch (const Interrupted&) {
      interrupted = 1;
    }
    std::array all = {sums.loss, sums.kl, sums.top1, interrupted};
    options_.group->sum(std::span<double>(all));
    if (all[3] > 0) throw Interrupted{};
    sums = {all[0], all[1], all[2]};
    if (gradient) options_.group->sum(std::span(flat_gradients_).first(size_of(layout_.scales_at)));
    if (gradient && !d_log_alpha_.empty()) options_.group->sum(std::span(d_log_alpha_));
  }
  return {sums.loss / tokens, sums.kl / tokens, sums.top1 / tokens};
}

void CpuDistiller::optimise(const StepOptions& options, float factor) {
  const auto update = [&](const AdamStep& step, int64_t from, int64_t to) {
    parallel_rows(to - from, options_.threads, [&](int64_t begin, int64_t end) {
      const auto part = [&](std::vector<float>& values) {
        return std::span(values).subspan(size_of(from + begin), size_of(end - begin));
      };
      adam(step, part(flat_gradients_), factor, part(state_.parameters), part(state_.mean),
           part(state_.square));
    });
  };
  if (options.muon)
    muon_masters(*options.muon, factor);
  else
    update(options.masters, 0, layout_.block_masters);
  update(options.embedding, layout_.block_masters, layout_.masters);
  update(options.norms, layout_.norms_at, layout_.scales_at);
  update(options.scales, layout_.scales_at, layout_.size);
}

void CpuDistiller::muon_masters(const MuonStep& step, float gradient_factor) {
  for (const MatrixPart& m : std::span(parts_).first(student_.size() * kMembers.size())) {
    const auto part = [&](std::vector<float>& values) {
      return std::span(values).subspan(size_of(m.master_at), size_of(m.N * m.K));
    };
    muon(step, part(flat_gradients_), gradient_factor, m.N, m.K, part(state_.parameters),
         part(state_.mean));
  }
}

// Widths begin to be learned with the first step that says so, and settle with the first of the
// tail.
void CpuDistiller::begin_noise() {
  if (noise_ == nullptr || noise_->costs == nullptr) return;
  LearnedWidths& widths = state_.widths;
  if (widths.beta.empty()) widths = widths_from(start_forms_);
  if (!noise_->on && !widths.settled())
    settle_widths(*noise_->costs, parts_, start_forms_, &widths, state_.parameters);
}

void CpuDistiller::step_noise(StepReport& report) {
  if (noise_ == nullptr) return;
  if (!d_log_alpha_.empty()) step_inputs(noise_->inputs, d_log_alpha_, &state_.inputs);
  if (noise_->costs == nullptr) return;
  report.width_cost = cost_share(*noise_->costs, state_.widths);
  if (noise_->on)
    step_widths(noise_->widths, *noise_->costs, noise_->budget_weight, d_bits_, &state_.widths);
}

StepReport CpuDistiller::step(std::span<const int32_t> ids, const StepOptions& options) {
  std::fill(flat_gradients_.begin(), flat_gradients_.end(), 0.0f);
  noise_ = options.noise ? &*options.noise : nullptr;
  begin_noise();
  StepReport result = over_windows(ids, options.loss, true);
  quantize_backward_all();
  const double squares = square_sum(std::span(flat_gradients_).first(size_of(layout_.scales_at)));
  result.gradient_norm = std::sqrt(squares);
  if (!std::isfinite(result.loss) || !std::isfinite(squares))
    throw Error(ExitCode::kNumeric, "training diverged (loss " + std::to_string(result.loss) + ")",
                "use a lower learning rate");
  optimise(options, static_cast<float>(clip_factor(squares, options.gradient_limit)));
  step_noise(result);
  noise_ = nullptr;
  return result;
}

StepReport CpuDistiller::evaluate(std::span<const int32_t> ids, const LossOptions& loss) {
  noise_ = nullptr;
  return over_windows(ids, loss, false);
}

int64_t CpuDistiller::changed_codes() {
  noise_ = nullptr;
  quantize_all();
  int64_t changed = 0;
  std::vector<std::vector<uint8_t>> codes;
  for (const FakeQuant& quant : quants_) codes.push_back(quant.rounded.codes);
  for (std::size_t i = 0; i < old_codes_.size(); ++i)
    for (std::size_t k = 0; k < codes[i].size(); ++k) changed += codes[i][k] != old_codes_[i][k];
  old_codes_ = std::move(codes);
  return changed;
}

void CpuDistiller::set_state(const TrainingState& state) {
  if (std::ssize(state.parameters) != layout_.size)
    throw FormatError("training state of another model (expected " + std::to_string(layout_.size) +
                      " parameters, found " + std::to_string(state.parameters.size()) + ")");
  state_ = state;
  changed_codes();
}

}  // namespace

std::unique_ptr<Distiller> make_cpu_distiller(const models::SourceModel& teacher,
                                              const models::SourceModel& student_source,
                                              const Student& student, int64_t S,
                                              CpuOptions options) {
  single_threaded_blas();
  return std::make_unique<CpuDistiller>(teacher, student_source, student, S, std::move(options));
}

}  // namespace crumb::quant::train
