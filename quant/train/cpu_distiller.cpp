#include "quant/train/cpu_distiller.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "models/errors.h"
#include "quant/rotation.h"
#include "quant/train/block.h"
#include "quant/train/fake_quant.h"
#include "quant/train/noise.h"
#include "quant/train/ops.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t kChunk = 64;  // tokens whose logits are held at a time

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// The matrices of a block in the order of matrix_parts().
constexpr std::array kMembers = {&BlockWeights::q,   &BlockWeights::k,    &BlockWeights::v,
                                 &BlockWeights::o,   &BlockWeights::gate, &BlockWeights::up,
                                 &BlockWeights::down};

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

class CpuDistiller final : public Distiller {
 public:
  CpuDistiller(const models::SourceModel& teacher, const models::SourceModel& student_source,
               const Student& student, int64_t S);
  StepReport step(std::span<const int32_t> ids, const StepOptions& options) override;
  StepReport evaluate(std::span<const int32_t> ids, const LossOptions& loss) override;
  int64_t changed_codes() override;
  TrainingState state() const override { return state_; }
  void set_state(const TrainingState& state) override;

 private:
  // Refreshes the student's blocks from its parameters, rounded, or noisy if noise is on.
  void quantize_all(const NoiseStep* noise);
  void round_part(std::size_t i, std::span<float> w);
  NoisyMatrix noisy(const NoiseStep& noise, std::size_t i) const;
  void begin_noise(const NoiseStep& noise);
  void gather_gradients(const NoiseStep* noise);
  void muon_masters(const MuonStep& step, float gradient_factor);
  std::vector<float> embed(const Ends& ends, std::span<const int32_t> ids) const;
  StepReport window(std::span<const int32_t> ids, int64_t token, const LossOptions& loss,
                    float weight, bool gradient, const NoiseStep* noise);
  std::vector<BlockInputs> block_inputs(int64_t token, const NoiseStep* noise) const;
  void fit_inputs(std::span<const int32_t> ids, int bits);
  StepReport losses(std::span<const float> teacher_hidden, std::span<const float> hidden,
                    std::span<const int32_t> ids, const LossOptions& loss, float weight,
                    std::span<float> d_hidden) const;
  void backward(const std::vector<std::vector<float>>& inputs,
                const std::vector<BlockActivations>& kept, std::span<const float> d_hidden,
                std::vector<BlockInputs>& quantized);
  StepReport over_windows(std::span<const int32_t> ids, const LossOptions& loss, bool gradient,
                          const NoiseStep* noise);
  bool is_noisy(const NoiseStep* noise) const { return noise != nullptr && noise->on; }

  models::ModelConfig config_;
  int64_t S_;
  models::Rotation rotation_;
  ParameterLayout layout_;
  std::vector<MatrixPart> parts_;
  std::vector<MatrixForm> start_forms_;
  BlockContext context_;
  Ends teacher_ends_, student_ends_;
  std::vector<BlockWeights> teacher_, student_, gradients_;
  std::vector<FakeQuant> quants_;  // by part
  std::vector<double> d_bits_;     // by part, of the noise
  std::vector<double> d_inputs_;   // of the log alphas
  std::vector<float> final_gradient_, flat_gradients_;
  std::vector<std::vector<uint8_t>> old_codes_;  // by part
  TrainingState state_;
};

CpuDistiller::CpuDistiller(const models::SourceModel& teacher,
                           const models::SourceModel& student_source, const Student& student,
                           int64_t S)
    : config_(student.config),
      S_(S),
      rotation_(student.rotation),
      layout_(student.layout),
      parts_(student.parts),
      start_forms_(student.forms),
      context_(config_, S),
      teacher_ends_(read_ends(teacher)),
      student_ends_(read_ends(student_source)),
      final_gradient_(size_of(config_.dim)),
      flat_gradients_(size_of(layout_.size)),
      state_{student.parameters, std::vector<float>(size_of(layout_.size)),
             std::vector<float>(size_of(layout_.size))} {
  for (int64_t l = 0; l < config_.layers; ++l) {
    teacher_.push_back(read_block(teacher, l));
    student_.push_back(zero_block(config_));
    gradients_.push_back(zero_block(config_));
  }
  quants_.resize(parts_.size());
  d_bits_.resize(parts_.size());
  changed_codes();
}

void CpuDistiller::round_part(std::size_t i, std::span<float> w) {
  const MatrixPart& part = parts_[i];
  const auto [form, log_factor] = rounding_form(start_forms_[i], state_.widths, i);
  FakeQuant& quant = quants_[i];
  if (quant.rounded.bits != form.bits) {
    quant.rounded = make_rounded(part.N, part.K, form.bits, 0, form.grid);
    // Any scale but 0, which would stay.
    std::fill(quant.rounded.scales.begin(), quant.rounded.scales.end(), uint16_t{0x3c00});
  }
  const float* p = state_.parameters.data();
  quant.master.assign(p + part.master_at, p + part.master_at + part.N * part.K);
  quant.log_scale.assign(p + part.scale_at, p + part.scale_at + part.N);
  for (float& a : quant.log_scale) a += log_factor;
  fake_quantize(&quant, w);
}

NoisyMatrix CpuDistiller::noisy(const NoiseStep& noise, std::size_t i) const {
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
          noise_width(noise, state_.widths, form, i),
          noise.seed,
          static_cast<uint64_t>(part.master_at)};
}

void CpuDistiller::quantize_all(const NoiseStep* noise) {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    auto& w = student_[i / kMembers.size()].*kMembers[i % kMembers.size()];
    if (is_noisy(noise))
      noisy_weights(noisy(*noise, i), w);
    else
      round_part(i, w);
    if (rotation_.hadamard != 0) unrotate_rows(w, parts_[i].K, rotation_);
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

void CpuDistiller::gather_gradients(const NoiseStep* noise) {
  const auto put = [&](std::span<const float> from, int64_t at) {
    std::copy(from.begin(), from.end(), flat_gradients_.begin() + at);
  };
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const MatrixPart& part = parts_[i];
    put(gradients_[i / kMembers.size()].*kMembers[i % kMembers.size()], part.master_at);
    const auto g =
        std::span(flat_gradients_).subspan(size_of(part.master_at), size_of(part.N * part.K));
    if (rotation_.hadamard != 0) rotate_rows(g, part.K, rotation_);
    const auto d_scale =
        std::span(flat_gradients_).subspan(size_of(part.scale_at), size_of(part.N));
    if (is_noisy(noise))
      d_bits_[i] = noisy_weights_backward(noisy(*noise, i), g, g, d_scale);
    else
      fake_quantize_backward(quants_[i], g, g, d_scale);
  }
  for (std::size_t l = 0; l < gradients_.size(); ++l) {
    put(gradients_[l].attn_norm, layout_.norm_at(2 * static_cast<int64_t>(l), config_.dim));
    put(gradients_[l].mlp_norm, layout_.norm_at(2 * static_cast<int64_t>(l) + 1, config_.dim));
  }
  put(final_gradient_, layout_.norm_at(2 * config_.layers, config_.dim));
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
                                const LossOptions& loss, float weight,
                                std::span<float> d_hidden) const {
  const int64_t D = config_.dim, V = config_.vocab;
  StepReport sums;
  std::vector<float> p, q, d;
  for (int64_t t = 0; t < S_; t += kChunk) {
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
                      {d_hidden.subspan(size_of(t * D), size_of(n * D)), {}, {}});
  }
  return sums;
}

// Of the window that starts at this token of the step; empty if inputs are not quantized.
std::vector<BlockInputs> CpuDistiller::block_inputs(int64_t token, const NoiseStep* noise) const {
  std::vector<BlockInputs> inputs;
  if (state_.inputs.log_alpha.empty()) return inputs;
  for (int64_t l = 0; l < config_.layers; ++l) {
    BlockInputs& block = inputs.emplace_back();
    for (const LinearInput input : kLinearInputs) {
      const auto i = static_cast<std::size_t>(input);
      block.quant[i] =
          input_quant(state_.inputs, l, i, is_noisy(noise), noise == nullptr ? 0 : noise->seed,
                      token, linear_input_width(config_, input));
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
                                const LossOptions& loss, float weight, bool gradient,
                                const NoiseStep* noise) {
  const auto finish = [&](const Ends& ends, std::span<const float> x) {
    std::vector<float> hidden(x.size());
    rmsnorm(x, ends.final_norm, config_.norm_eps, hidden);
    return hidden;
  };
  BlockActivations scratch(config_, S_);
  std::vector<float> x = embed(teacher_ends_, ids);
  for (const BlockWeights& block : teacher_) block_forward(context_, block, x, scratch, x);
  const std::vector<float> teacher_hidden = finish(teacher_ends_, x);
  std::vector<std::vector<float>> inputs = {embed(student_ends_, ids)};
  std::vector<BlockActivations> kept;
  std::vector<BlockInputs> quantized = block_inputs(token, noise);
  for (std::size_t l = 0; l < student_.size(); ++l) {
    kept.emplace_back(config_, S_);
    inputs.emplace_back(inputs[l].size());
    block_forward(context_, student_[l], inputs[l], kept[l], inputs[l + 1],
                  quantized.empty() ? nullptr : &quantized[l]);
  }
  const std::vector<float> hidden = finish(student_ends_, inputs.back());
  std::vector<float> d_hidden(gradient ? hidden.size() : 0);
  const StepReport sums = losses(teacher_hidden, hidden, ids, loss, weight, d_hidden);
  if (gradient) backward(inputs, kept, d_hidden, quantized);
  return sums;
}

void CpuDistiller::backward(const std::vector<std::vector<float>>& inputs,
                            const std::vector<BlockActivations>& kept,
                            std::span<const float> d_hidden, std::vector<BlockInputs>& quantized) {
  std::vector<float> dx(d_hidden.size());
  rmsnorm_backward(inputs.back(), student_ends_.final_norm, config_.norm_eps, d_hidden, dx,
                   final_gradient_);
  BlockActivations scratch(config_, S_);
  for (std::size_t l = student_.size(); l-- > 0;) {
    BlockInputs* quant = quantized.empty() ? nullptr : &quantized[l];
    block_backward(context_, student_[l], inputs[l], kept[l], dx, scratch, gradients_[l], dx,
                   quant);
    for (std::size_t i = 0; quant != nullptr && i < 4; ++i)
      d_inputs_[4 * l + i] += quant->d_log_alpha[i];
  }
}

StepReport CpuDistiller::over_windows(std::span<const int32_t> ids, const LossOptions& loss,
                                      bool gradient, const NoiseStep* noise) {
  if (ids.empty() || std::ssize(ids) % S_ != 0)
    throw Error(ExitCode::kUsage, "training tokens (expected a multiple of " + std::to_string(S_) +
                                      ", found " + std::to_string(ids.size()) + ")");
  const auto tokens = static_cast<double>(ids.size());
  StepReport mean;
  for (std::size_t at = 0; at < ids.size(); at += size_of(S_)) {
    const StepReport one = window(ids.subspan(at, size_of(S_)), static_cast<int64_t>(at), loss,
                                  static_cast<float>(1.0 / tokens), gradient, noise);
    mean.loss += one.loss / tokens;
    mean.kl += one.kl / tokens;
    mean.top1 += one.top1 / tokens;
  }
  return mean;
}

// Widths begin to be learned with the first step that says so, and settle with the first of the
// tail.
void CpuDistiller::begin_noise(const NoiseStep& noise) {
  LearnedWidths& widths = state_.widths;
  if (noise.costs == nullptr) return;
  if (widths.beta.empty()) widths = widths_from(start_forms_);
  if (!noise.on && !widths.settled())
    settle_widths(*noise.costs, parts_, start_forms_, &widths, state_.parameters);
}

void CpuDistiller::muon_masters(const MuonStep& step, float gradient_factor) {
  for (const auto& layer : layout_.layers)
    for (const MatrixSlot& slot : layer) {
      int64_t at = slot.master_at;
      for (const int64_t N : slot.rows) {
        const auto part = [&](std::vector<float>& values) {
          return std::span(values).subspan(size_of(at), size_of(N * slot.K));
        };
        muon(step, part(flat_gradients_), gradient_factor, N, slot.K, part(state_.parameters),
             part(state_.mean));
        at += N * slot.K;
      }
    }
}

StepReport CpuDistiller::step(std::span<const int32_t> ids, const StepOptions& options) {
  for (BlockWeights& block : gradients_) block = zero_block(config_);
  std::fill(final_gradient_.begin(), final_gradient_.end(), 0.0f);
  const NoiseStep* noise = options.noise ? &*options.noise : nullptr;
  if (noise != nullptr) begin_noise(*noise);
  quantize_all(noise);
  if (noise != nullptr && noise->input_bits != 0 && state_.inputs.log_alpha.empty())
    fit_inputs(ids.first(size_of(S_)), noise->input_bits);
  d_inputs_.assign(state_.inputs.log_alpha.size(), 0.0);
  StepReport result = over_windows(ids, options.loss, true, noise);
  gather_gradients(noise);
  const auto part = [](std::vector<float>& values, int64_t at, int64_t n) {
    return std::span(values).subspan(size_of(at), size_of(n));
  };
  const double squares = square_sum(part(flat_gradients_, 0, layout_.scales_at));
  const auto factor = static_cast<float>(clip_factor(squares, options.gradient_limit));
  const auto update = [&](const AdamStep& step, int64_t at, int64_t n) {
    adam(step, part(flat_gradients_, at, n), factor, part(state_.parameters, at, n),
         part(state_.mean, at, n), part(state_.square, at, n));
  };
  if (options.muon)
    muon_masters(*options.muon, factor);
  else
    update(options.masters, 0, layout_.masters);
  update(options.norms, layout_.norms_at, layout_.norms);
  update(options.scales, layout_.scales_at, layout_.scales);
  if (noise != nullptr && noise->costs != nullptr) {
    result.width_cost = cost_share(*noise->costs, state_.widths);
    if (noise->on)
      step_widths(noise->widths, *noise->costs, noise->budget_weight, d_bits_, &state_.widths);
  }
  if (noise != nullptr && !d_inputs_.empty()) step_inputs(noise->inputs, d_inputs_, &state_.inputs);
  result.gradient_norm = std::sqrt(squares);
  if (!std::isfinite(result.loss) || !std::isfinite(squares))
    throw Error(ExitCode::kNumeric, "training diverged (loss " + std::to_string(result.loss) + ")",
                "use a lower learning rate");
  return result;
}

StepReport CpuDistiller::evaluate(std::span<const int32_t> ids, const LossOptions& loss) {
  quantize_all(nullptr);
  return over_windows(ids, loss, false, nullptr);
}

int64_t CpuDistiller::changed_codes() {
  quantize_all(nullptr);
  int64_t changed = 0;
  std::vector<std::vector<uint8_t>> codes;
  for (const FakeQuant& quant : quants_) codes.push_back(quant.rounded.codes);
  for (std::size_t i = 0; i < old_codes_.size(); ++i)
    for (std::size_t k = 0; k < codes[i].size(); ++k) changed += codes[i][k] != old_codes_[i][k];
  old_codes_ = std::move(codes);
  return changed;
}

void CpuDistiller::set_state(const TrainingState& state) {
  state_ = state;
  changed_codes();
}

}  // namespace

std::unique_ptr<Distiller> make_cpu_distiller(const models::SourceModel& teacher,
                                              const models::SourceModel& student_source,
                                              const Student& student, int64_t S) {
  single_threaded_blas();
  return std::make_unique<CpuDistiller>(teacher, student_source, student, S);
}

}  // namespace crumb::quant::train
