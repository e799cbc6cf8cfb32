#include "quant/train/cuda/cuda_distiller.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "models/checkpoint.h"
#include "models/errors.h"
#include "quant/train/cuda/float_model.h"
#include "quant/train/cuda/muon.h"

namespace crumb::quant::train::cuda {
namespace {

// Where every token of a batch was looked up: its different ids, and the positions of each.
struct Lookup {
  std::vector<int32_t> ids, starts, positions;
};
Lookup lookup_of(std::span<const int32_t> batch) {
  Lookup lookup;
  lookup.positions.resize(batch.size());
  std::iota(lookup.positions.begin(), lookup.positions.end(), 0);
  const auto id_at = [&](int32_t position) { return batch[static_cast<std::size_t>(position)]; };
  std::ranges::stable_sort(lookup.positions, {}, id_at);
  for (std::size_t i = 0; i < batch.size(); ++i)
    if (const int32_t id = id_at(lookup.positions[i]); i == 0 || id != lookup.ids.back()) {
      lookup.ids.push_back(id);
      lookup.starts.push_back(static_cast<int32_t>(i));
    }
  lookup.starts.push_back(static_cast<int32_t>(batch.size()));
  return lookup;
}

AdamRates rates(const AdamStep& s) {
  return {s.rate, s.decay, s.beta1, s.beta2, s.mean_factor, s.square_factor, s.eps};
}

class CudaDistiller final : public Distiller {
 public:
  CudaDistiller(const models::SourceModel& teacher, const models::SourceModel& student_source,
                const Student& student, const CudaOptions& options);

  StepReport step(std::span<const int32_t> ids, const StepOptions& options) override;
  StepReport evaluate(std::span<const int32_t> ids, const LossOptions& loss) override;
  int64_t changed_codes() override;
  TrainingState state() const override;
  void set_state(const TrainingState& state) override;

 private:
  GridSpec grid_spec(std::size_t i) const;
  void embedding_backward(std::span<const int32_t> ids);
  void fake_quantize_all(bool codes);
  void fake_quantize_backward_all();
  NoiseSpec noise_of(const NoiseStep& noise, std::size_t i) const;
  void noisy_all(const NoiseStep& noise);
  void noisy_backward_all(const NoiseStep& noise);
  void begin_noise(const NoiseStep& noise);
  void step_noise(const NoiseStep& noise, StepReport& report);
  void fit_inputs(int bits);
  void set_inputs(const NoiseStep* noise);
  void upload_ids(std::span<const int32_t> ids, const LossOptions& loss);
  void forward_both(bool keep);
  // `batches`: those whose mean is meant.
  void losses(const LossOptions& loss, bool gradient, int64_t batches);
  // Batches of all members, and the ids of the own ones.
  struct Share {
    int64_t batches = 0;
    std::span<const int32_t> ids;
  };
  Share share_of(std::span<const int32_t> ids) const;
  double total(const DeviceArray<float>& values) const;
  void report(int64_t batches, StepReport& sum) const;
  const float* signs(int64_t K) const;

  models::ModelConfig config_;
  CudaOptions options_;
  ParameterLayout layout_;
  std::vector<MatrixPart> parts_;
  std::vector<MatrixForm> start_forms_;  // of the parts
  LearnedWidths widths_;
  LearnedInputs inputs_;
  Stream stream_;
  Network network_;
  Muon muon_;
  FloatModel teacher_;
  DeviceArray<bf16> embedding_, head_, matrices_;  // the student's
  DeviceArray<float> parameters_, gradients_, mean_, square_;
  DeviceArray<float> gradient_sum_;  // of micro-batches, if there are several
  std::vector<std::pair<int64_t, DeviceArray<float>>> signs_;  // by K
  std::vector<DeviceArray<uint8_t>> zeros_;                    // of the parts, on the asym grid
  DeviceArray<int32_t> lookup_;  // Lookup's three arrays, if the embedding is trained
  Weights weights_;
  DeviceArray<uint8_t> codes_, old_codes_;
  std::vector<LayerActivations> kept_, scratch_;
  GradientScratch gradient_scratch_;
  DeviceArray<int32_t> ids_, labels_;
  DeviceArray<float> last_, teacher_logits_, student_logits_, loss_, kl_, agree_;
  DeviceArray<bf16> teacher_hidden_, hidden_, d_hidden_, d_logits_;
  mutable DeviceArray<double> partial_, sums_;
  DeviceArray<float> d_bits_;  // [scales], at the first noisy step
  QuantizedInputs quantized_;  // this and the rest: if inputs are quantized
  DeviceArray<bf16> input_buffer_;
  DeviceArray<double> d_log_alpha_;
  DeviceArray<unsigned long long> changed_{1};
};

CudaDistiller::CudaDistiller(const models::SourceModel& teacher,
                             const models::SourceModel& student_source, const Student& student,
                             const CudaOptions& options)
    : config_(student.config),
      options_(options),
      layout_(student.layout),
      parts_(student.parts),
      start_forms_(student.forms),
      network_(config_, options.B, options.S, stream_.get(), options.tune),
      muon_(layout_, network_.gemm(), stream_.get()),
      teacher_(teacher),
      embedding_(layout_.embedding ? DeviceArray<bf16>()
                                   : upload_matrix(student_source, "model.embed_tokens",
                                                   config_.vocab * config_.dim)),
      matrices_(layout_.masters),
      parameters_(std::span(student.parameters)),
      gradients_(layout_.size),
      mean_(layout_.size),
      square_(layout_.size),
      codes_(layout_.masters),
      old_codes_(layout_.masters),
      gradient_scratch_(config_, options.B, options.S),
      ids_(options.B * options.S),
      labels_(options.B * options.S),
      last_(options.B * options.S * config_.dim),
      teacher_logits_(options.chunk * config_.vocab),
      student_logits_(options.chunk * config_.vocab),
      loss_(options.B * options.S),
      kl_(options.B * options.S),
      agree_(options.B * options.S),
      teacher_hidden_(options.B * options.S * config_.dim),
      hidden_(options.B * options.S * config_.dim),
      d_hidden_(options.B * options.S * config_.dim),
      d_logits_(options.chunk * config_.vocab),
      partial_(kSumBlocks),
      sums_(4) {
  if (!config_.tied_head)
    head_ = upload_matrix(student_source, "lm_head", config_.vocab * config_.dim);
  for (int64_t l = 0; l < config_.layers; ++l) kept_.emplace_back(config_, options.B, options.S);
  scratch_.emplace_back(config_, options.B, options.S);
  mean_.zero(stream_.get());
  square_.zero(stream_.get());
  if (student.rotation.hadamard != 0)
    for (const int64_t K : {config_.dim, config_.heads * config_.head_dim, config_.ffn})
      if (signs(K) == nullptr) {
        const std::vector<float> values = models::rotation_signs(student.rotation, K);
        signs_.emplace_back(K, DeviceArray<float>(std::span(values)));
      }
  for (const auto& zeros : student.zeros)
    zeros_.push_back(zeros.empty() ? DeviceArray<uint8_t>()
                                   : DeviceArray<uint8_t>(std::span(zeros)));
  if (layout_.embedding) lookup_ = DeviceArray<int32_t>(3 * options.B * options.S + 1);
  weights_.embedding =
      layout_.embedding ? matrices_.data() + layout_.embedding->master_at : embedding_.data();
  weights_.head = config_.tied_head ? weights_.embedding : head_.data();
  weights_.final_norm = parameters_.data() + layout_.norm_at(2 * config_.layers, config_.dim);
  for (int64_t l = 0; l < config_.layers; ++l) {
    LayerWeights layer;
    layer.attn_norm = parameters_.data() + layout_.norm_at(2 * l, config_.dim);
    layer.mlp_norm = parameters_.data() + layout_.norm_at(2 * l + 1, config_.dim);
    const MatrixSlot& qkv = layout_.layers[static_cast<std::size_t>(l)][0];
    if (qkv.bias_at >= 0) layer.bias = parameters_.data() + qkv.bias_at;
    for (std::size_t i = 0; i < 4; ++i)
      layer.matrix[i] = matrices_.data() + layout_.layers[static_cast<std::size_t>(l)][i].master_at;
    weights_.layers.push_back(layer);
  }
  fake_quantize_all(true);
  std::swap(codes_, old_codes_);
}

const float* CudaDistiller::signs(int64_t K) const {
  for (const auto& [width, values] : signs_)
    if (width == K) return values.data();
  return nullptr;
}

GridSpec CudaDistiller::grid_spec(std::size_t i) const {
  const RoundingForm r = rounding_form(start_forms_[i], widths_, i);
  const auto zero2 = static_cast<float>(kernels::grid_zero2(r.form.grid, r.form.bits));
  return {r.form.bits, 0.5f * zero2, r.log_factor, parts_[i].groups == 1 ? 0 : layout_.group,
          zeros_.at(i).data()};
}

void CudaDistiller::fake_quantize_all(bool codes) {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const MatrixPart& p = parts_[i];
    fake_quantize(parameters_.data() + p.master_at, parameters_.data() + p.scale_at, grid_spec(i),
                  signs(p.K), p.N, p.K, matrices_.data() + p.master_at,
                  codes ? codes_.data() + p.master_at : nullptr, stream_.get());
  }
}

void CudaDistiller::fake_quantize_backward_all() {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const MatrixPart& p = parts_[i];
    fake_quantize_backward(parameters_.data() + p.master_at, parameters_.data() + p.scale_at,
                           grid_spec(i), signs(p.K), p.N, p.K, gradients_.data() + p.master_at,
                           gradients_.data() + p.scale_at, stream_.get());
  }
}

NoiseSpec CudaDistiller::noise_of(const NoiseStep& noise, std::size_t i) const {
  const MatrixForm& form = start_forms_[i];
  NoisyMatrix m;
  m.grid = form.grid;
  m.scale_bits = form.bits;
  m.bits = noise_width(noise, widths_, form, i);
  return {noise_steps(m), form.grid == kernels::Grid::kLsq, noise.seed,
          static_cast<uint64_t>(parts_[i].master_at)};
}

void CudaDistiller::noisy_all(const NoiseStep& noise) {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const MatrixPart& p = parts_[i];
    noisy_weights(parameters_.data() + p.master_at, parameters_.data() + p.scale_at,
                  noise_of(noise, i), signs(p.K), p.N, p.K, matrices_.data() + p.master_at,
                  stream_.get());
  }
}

void CudaDistiller::noisy_backward_all(const NoiseStep& noise) {
  if (d_bits_.size() == 0) d_bits_ = DeviceArray<float>(layout_.scales);
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const MatrixPart& p = parts_[i];
    noisy_weights_backward(parameters_.data() + p.master_at, parameters_.data() + p.scale_at,
                           noise_of(noise, i), signs(p.K), p.N, p.K,
                           gradients_.data() + p.master_at, gradients_.data() + p.scale_at,
                           d_bits_.data() + (p.scale_at - layout_.scales_at), stream_.get());
  }
}

// Widths begin to be learned with the first step that says so, and settle with the first of the
// tail.
void CudaDistiller::begin_noise(const NoiseStep& noise) {
  if (noise.costs == nullptr) return;
  if (widths_.beta.empty()) widths_ = widths_from(start_forms_);
  if (noise.on || widths_.settled()) return;
  std::vector<float> parameters = parameters_.to_host();
  settle_widths(*noise.costs, parts_, start_forms_, &widths_, parameters);
  parameters_.upload(parameters);
}

void CudaDistiller::step_noise(const NoiseStep& noise, StepReport& report) {
  if (weights_.inputs != nullptr) step_inputs(noise.inputs, d_log_alpha_.to_host(), &inputs_);
  if (noise.costs == nullptr) return;
  report.width_cost = cost_share(*noise.costs, widths_);
  if (!noise.on) return;
  const std::vector<float> rows = d_bits_.to_host();
  std::vector<double> d_bits;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const auto row = rows.begin() + (parts_[i].scale_at - layout_.scales_at);
    d_bits.push_back(noise_of(noise, i).steps.d_bits *
                     std::accumulate(row, row + parts_[i].N, 0.0));
  }
  step_widths(noise.widths, *noise.costs, noise.budget_weight, d_bits, &widths_);
}

// Truncations from the student's inputs in the first window.
void CudaDistiller::fit_inputs(int bits) {
  network_.forward(weights_, ids_.data(), kept_, last_.data(), hidden_.data());
  inputs_.bits = bits;
  for (const LayerActivations& a : kept_)
    for (const auto* input : {&a.attn_in, &a.o_in, &a.mlp_in, &a.down_in}) {
      std::vector<bf16> values(static_cast<std::size_t>(input->size() / options_.B));
      input->download(std::span(values));
      inputs_.log_alpha.push_back(fitted_log_alpha(to_float(values), bits));
    }
  inputs_.mean.resize(inputs_.log_alpha.size());
  inputs_.square.resize(inputs_.log_alpha.size());
}

// Points the student's weights to how its inputs are quantized, if they are.
void CudaDistiller::set_inputs(const NoiseStep* noise) {
  weights_.inputs = nullptr;
  if (inputs_.log_alpha.empty()) return;
  if (input_buffer_.size() == 0) {
    const int64_t widest = std::max({config_.dim, config_.heads * config_.head_dim, config_.ffn});
    input_buffer_ = DeviceArray<bf16>(network_.tokens() * widest);
    d_log_alpha_ = DeviceArray<double>(4 * config_.layers);
  }
  d_log_alpha_.zero(stream_.get());
  const bool noisy = noise != nullptr && noise->on;
  quantized_ = {
      &inputs_,           noisy, noisy ? noise->seed : 0, 0, input_buffer_.data(), partial_.data(),
      d_log_alpha_.data()};
  weights_.inputs = &quantized_;
}

void CudaDistiller::upload_ids(std::span<const int32_t> ids, const LossOptions& loss) {
  ids_.upload(ids);
  if (loss.kind != LossKind::kCrossEntropy) return;
  std::vector<int32_t> labels(ids.size(), -1);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i)
    if ((static_cast<int64_t>(i) + 1) % options_.S != 0) labels[i] = ids[i + 1];
  labels_.upload(labels);
}

void CudaDistiller::forward_both(bool keep) {
  network_.forward(teacher_.weights(), ids_.data(), scratch_, last_.data(), teacher_hidden_.data());
  network_.forward(weights_, ids_.data(), keep ? kept_ : scratch_, last_.data(), hidden_.data());
}

void CudaDistiller::losses(const LossOptions& loss, bool gradient, int64_t batches) {
  const int64_t T = network_.tokens(), V = config_.vocab, D = config_.dim;
  Gemm& gemm = network_.gemm();
  const float weight = 1.0f / static_cast<float>(T * batches);
  for (int64_t t = 0; t < T; t += options_.chunk) {
    const int64_t n = std::min(options_.chunk, T - t);
    gemm.forward(teacher_hidden_.data() + t * D, teacher_.weights().head, n, V, D,
                 teacher_logits_.data());
    gemm.forward(hidden_.data() + t * D, weights_.head, n, V, D, student_logits_.data());
    distill_loss(loss, teacher_logits_.data(), student_logits_.data(),
                 loss.kind == LossKind::kCrossEntropy ? labels_.data() + t : nullptr, weight, n, V,
                 loss_.data() + t, kl_.data() + t, agree_.data() + t,
                 gradient ? d_logits_.data() : nullptr, stream_.get());
    if (gradient)
      gemm.backward_input(d_logits_.data(), weights_.head, n, V, D, d_hidden_.data() + t * D);
    if (gradient && layout_.embedding)
      gemm.backward_weight(d_logits_.data(), hidden_.data() + t * D, n, V, D, t > 0,
                           gradients_.data() + layout_.embedding->master_at);
  }
}

// What the lookup of `ids` adds to the head's gradient, from that of the first block's input.
void CudaDistiller::embedding_backward(std::span<const int32_t> ids) {
  const Lookup lookup = lookup_of(ids);
  const int64_t T = network_.tokens(), starts_at = T, positions_at = 2 * T + 1;
  lookup_.upload(lookup.ids);
  lookup_.upload(lookup.starts, starts_at);
  lookup_.upload(lookup.positions, positions_at);
  embed_backward(lookup_.data(), lookup_.data() + starts_at, lookup_.data() + positions_at,
                 std::ssize(lookup.ids), gradient_scratch_.residual.data(), config_.dim,
                 gradients_.data() + layout_.embedding->master_at, stream_.get());
}

double CudaDistiller::total(const DeviceArray<float>& values) const {
  sum(values.data(), values.size(), partial_.data(), sums_.data() + 1, stream_.get());
  double result = 0;
  sums_.download({&result, 1}, 1);
  return result;
}

void CudaDistiller::report(int64_t batches, StepReport& sum) const {
  const auto tokens = static_cast<double>(batches * network_.tokens());
  sum.loss += total(loss_);
  sum.kl += total(kl_) / tokens;
  sum.top1 += total(agree_) / tokens;
}

CudaDistiller::Share CudaDistiller::share_of(std::span<const int32_t> ids) const {
  const std::size_t members =
      options_.group == nullptr ? 1 : static_cast<std::size_t>(options_.group->size());
  const auto per = static_cast<std::size_t>(network_.tokens());
  if (ids.empty() || ids.size() % (per * members) != 0)
    throw Error(ExitCode::kUsage, "training tokens (expected a multiple of " +
                                      std::to_string(per * members) + ", found " +
                                      std::to_string(ids.size()) + ")");
  // Here, not batch by batch: a member that failed alone would be waited for.
  for (const int32_t id : ids)
    if (id < 0 || id >= config_.vocab)
      throw FormatError("token id (training data: expected less than " +
                        std::to_string(config_.vocab) + ", found " + std::to_string(id) + ")");
  const std::size_t own = ids.size() / members;
  const std::size_t rank =
      options_.group == nullptr ? 0 : static_cast<std::size_t>(options_.group->rank());
  return {static_cast<int64_t>(ids.size() / per), ids.subspan(rank * own, own)};
}

StepReport CudaDistiller::step(std::span<const int32_t> ids, const StepOptions& options) {
  const Share share = share_of(ids);
  const auto per = static_cast<std::size_t>(network_.tokens());
  const bool several = share.ids.size() > per;
  if (several && gradient_sum_.size() == 0) gradient_sum_ = DeviceArray<float>(layout_.size);
  if (several) gradient_sum_.zero(stream_.get());
  const NoiseStep* noise = options.noise ? &*options.noise : nullptr;
  if (noise != nullptr) begin_noise(*noise);
  const bool noisy = noise != nullptr && noise->on;
  if (noisy)
    noisy_all(*noise);
  else
    fake_quantize_all(false);
  if (noise != nullptr && noise->input_bits != 0) {
    if (options_.group != nullptr)
      throw Error(ExitCode::kUsage, "quantized inputs on several GPUs (expected one)");
    if (inputs_.log_alpha.empty()) {
      upload_ids(share.ids.first(per), options.loss);
      fit_inputs(noise->input_bits);
    }
  }
  set_inputs(noise);
  StepReport result;
  for (std::size_t at = 0; at < share.ids.size(); at += per) {
    upload_ids(share.ids.subspan(at, per), options.loss);
    quantized_.token = static_cast<int64_t>(at);
    forward_both(true);
    losses(options.loss, true, share.batches);
    network_.backward(weights_, layout_, kept_, last_.data(), d_hidden_.data(), gradient_scratch_,
                      gradients_.data());
    if (layout_.embedding) embedding_backward(share.ids.subspan(at, per));
    report(share.batches, result);
    if (several) add(gradients_.data(), layout_.scales_at, gradient_sum_.data(), stream_.get());
  }
  if (several) std::swap(gradients_, gradient_sum_);
  if (options_.group != nullptr)
    options_.group->sum(gradients_.data(), layout_.scales_at, stream_.get());
  if (noisy)
    noisy_backward_all(*noise);
  else
    fake_quantize_backward_all();
  square_sum(gradients_.data(), layout_.scales_at, partial_.data(), sums_.data(), stream_.get());
  const auto update = [&](const AdamStep& step, int64_t at, int64_t n) {
    adam(rates(step), sums_.data(), options.gradient_limit, gradients_.data() + at, n,
         parameters_.data() + at, mean_.data() + at, square_.data() + at, stream_.get());
  };
  if (options.muon)
    muon_.step(*options.muon, sums_.data(), options.gradient_limit, gradients_.data(),
               parameters_.data(), mean_.data());
  else
    update(options.masters, 0, layout_.block_masters);
  if (layout_.embedding)
    update(options.embedding, layout_.block_masters, layout_.masters - layout_.block_masters);
  update(options.norms, layout_.norms_at, layout_.scales_at - layout_.norms_at);
  update(options.scales, layout_.scales_at, layout_.scales);
  if (noise != nullptr) step_noise(*noise, result);
  double squares = 0;
  sums_.download({&squares, 1});
  result.gradient_norm = std::sqrt(squares);
  if (!std::isfinite(result.loss) || !std::isfinite(squares))
    throw Error(ExitCode::kNumeric,
                "training diverged (loss " + std::to_string(result.loss) + ", gradient norm " +
                    std::to_string(result.gradient_norm) + ")",
                "use a lower learning rate");
  return result;
}

StepReport CudaDistiller::evaluate(std::span<const int32_t> ids, const LossOptions& loss) {
  const Share share = share_of(ids);
  const auto per = static_cast<std::size_t>(network_.tokens());
  fake_quantize_all(false);
  set_inputs(nullptr);
  StepReport mean;
  for (std::size_t at = 0; at < share.ids.size(); at += per) {
    upload_ids(share.ids.subspan(at, per), loss);
    forward_both(false);
    losses(loss, false, share.batches);
    report(share.batches, mean);
  }
  return mean;
}

int64_t CudaDistiller::changed_codes() {
  fake_quantize_all(true);
  changed_.zero(stream_.get());
  count_changes(codes_.data(), old_codes_.data(), layout_.masters, changed_.data(), stream_.get());
  std::swap(codes_, old_codes_);
  return static_cast<int64_t>(changed_.to_host()[0]);
}

TrainingState CudaDistiller::state() const {
  return {parameters_.to_host(), mean_.to_host(), square_.to_host(), widths_, inputs_};
}

void CudaDistiller::set_state(const TrainingState& state) {
  parameters_.upload(state.parameters);
  mean_.upload(state.mean);
  square_.upload(state.square);
  widths_ = state.widths;
  inputs_ = state.inputs;
  fake_quantize_all(true);
  std::swap(codes_, old_codes_);
}

}  // namespace

std::unique_ptr<Distiller> make_distiller(const models::SourceModel& teacher,
                                          const models::SourceModel& student_source,
                                          const Student& student, const CudaOptions& options) {
  return std::make_unique<CudaDistiller>(teacher, student_source, student, options);
}

}  // namespace crumb::quant::train::cuda
