#include "quant/train/cuda/cuda_adapter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "models/errors.h"
#include "quant/train/cuda/adapter_ops.h"
#include "quant/train/cuda/float_model.h"

namespace crumb::quant::train::cuda {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

AdamRates rates(const AdamStep& s) {
  return {s.rate, s.decay, s.beta1, s.beta2, s.mean_factor, s.square_factor, s.eps};
}

// A batch as it is uploaded.
struct Packed {
  std::vector<int32_t> ids, labels, positions;
  std::vector<float> features;
};
Packed pack(std::span<const AdapterSample> samples, int64_t S, int64_t F) {
  Packed p;
  for (const AdapterSample& s : samples) {
    const auto first = static_cast<int32_t>(p.ids.size());
    p.ids.insert(p.ids.end(), s.ids.begin(), s.ids.end());
    for (int64_t t = 1; t <= S; ++t)
      p.labels.push_back(t < S && s.scored[size_of(t)] != 0 ? s.ids[size_of(t)] : -1);
    for (int64_t r = 0; r < std::ssize(s.features) / F; ++r)
      p.positions.push_back(first + static_cast<int32_t>(s.image_at + r));
    p.features.insert(p.features.end(), s.features.begin(), s.features.end());
  }
  return p;
}

class CudaAdapterTrainer final : public AdapterTrainer {
 public:
  CudaAdapterTrainer(const models::SourceModel& decoder, AdapterLayout layout,
                     std::vector<float> start, const AdapterCuda& options);
  AdapterReport step(std::span<const AdapterSample> samples, const AdamStep& projector,
                     const AdamStep& low_rank, double gradient_limit) override;
  AdapterReport evaluate(std::span<const AdapterSample> samples) override {
    return over(samples, false);
  }
  AdapterState state() const override {
    return {parameters_.to_host(), mean_.to_host(), square_.to_host()};
  }
  void set_state(const AdapterState& state) override;

 private:
  void merge();
  AdapterReport over(std::span<const AdapterSample> samples, bool gradient);
  void forward(const Packed& batch);
  void losses(int64_t scored, bool gradient);
  void backward(const Packed& batch, bool first);
  void low_rank_backward(bool first);
  void projector_backward(int64_t R, bool first);
  void bias_gradient(const bf16* dy, int64_t R, int64_t N, int64_t at, bool first);
  double total(const DeviceArray<float>& values) const;
  const bf16* low(int64_t at) const { return rounded_.data() + at; }

  models::ModelConfig config_;
  AdapterCuda options_;
  AdapterLayout layout_;
  ParameterLayout slots_;
  std::vector<MatrixPart> parts_;
  Stream stream_;
  Network network_;
  FloatModel frozen_;
  Weights weights_;  // with the changes
  DeviceArray<bf16> matrices_, rounded_, dw_;
  DeviceArray<float> parameters_, gradients_, mean_, square_, slot_gradients_, bias_sum_,
      partial_rows_;
  std::vector<LayerActivations> kept_;
  GradientScratch scratch_;
  DeviceArray<int32_t> ids_, labels_, positions_;
  DeviceArray<bf16> features_, gelu_, hidden_, d_hidden_, d_logits_, d_rows_, d_gelu_;
  DeviceArray<float> inner_, rows_, last_, logits_, loss_, kl_, hit_;
  mutable DeviceArray<double> partial_, sums_;
};

CudaAdapterTrainer::CudaAdapterTrainer(const models::SourceModel& decoder, AdapterLayout layout,
                                       std::vector<float> start, const AdapterCuda& o)
    : config_(decoder.config),
      options_(o),
      layout_(std::move(layout)),
      slots_(parameter_layout(config_)),
      parts_(matrix_parts(slots_)),
      network_(config_, o.B, o.S, stream_.get(), o.tune),
      frozen_(decoder),
      weights_(frozen_.weights()),
      matrices_(slots_.masters),
      rounded_(layout_.size),
      parameters_(std::span<const float>(start)),
      gradients_(layout_.size),
      mean_(layout_.size),
      square_(layout_.size),
      slot_gradients_(slots_.size),
      scratch_(config_, o.B, o.S),
      ids_(o.B * o.S),
      labels_(o.B * o.S),
      positions_(o.B * o.S),
      hidden_(o.B * o.S * config_.dim),
      d_hidden_(o.B * o.S * config_.dim),
      d_logits_(o.chunk * config_.vocab),
      last_(o.B * o.S * config_.dim),
      logits_(o.chunk * config_.vocab),
      loss_(o.B * o.S),
      kl_(o.B * o.S),
      hit_(o.B * o.S),
      partial_(kSumBlocks),
      sums_(2) {
  const AdapterShape& a = layout_.shape;
  if (a.rank % 2 != 0 || a.hidden % 2 != 0 || a.features % 2 != 0)
    throw Error(ExitCode::kUsage, "adapter on the GPU (expected even rank, hidden and features)");
  int64_t widest = 0;
  for (const MatrixPart& part : parts_) widest = std::max(widest, part.N * part.K);
  dw_ = DeviceArray<bf16>(widest);
  bias_sum_ = DeviceArray<float>(std::max(a.hidden, config_.dim));
  partial_rows_ = DeviceArray<float>(kNormBlocks * std::max(a.hidden, config_.dim));
  for (int64_t l = 0; l < config_.layers; ++l) kept_.emplace_back(config_, o.B, o.S);
  if (a.rank > 0)
    for (std::size_t l = 0; l < weights_.layers.size(); ++l)
      for (std::size_t i = 0; i < 4; ++i)
        weights_.layers[l].matrix[i] = matrices_.data() + slots_.layers[l][i].master_at;
  mean_.zero(stream_.get());
  square_.zero(stream_.get());
  merge();
}

// W' = W + (alpha / r) B A, all in bf16.
void CudaAdapterTrainer::merge() {
  round_to_bf16(parameters_.data(), layout_.size, rounded_.data(), stream_.get());
  const int64_t r = layout_.shape.rank;
  if (r == 0) return;
  const auto factor = static_cast<float>(layout_.shape.alpha / static_cast<double>(r));
  for (std::size_t i = 0; i < layout_.matrices.size(); ++i) {
    const AdapterMatrix& m = layout_.matrices[i];
    const auto l = size_of(m.layer);
    // Where the part stands within its slot, in the frozen model as in the changed one.
    const auto slot = std::ranges::find_if(slots_.layers[l], [&](const MatrixSlot& s) {
      return parts_[i].master_at >= s.master_at && parts_[i].master_at < s.master_at + s.N * s.K;
    });
    const bf16* w = frozen_.weights().layers[l].matrix[size_of(slot - slots_.layers[l].begin())] +
                    (parts_[i].master_at - slot->master_at);
    network_.gemm().batched({Transposed::kNone, 1, m.N, m.K, r, factor, 1.0f}, low(m.b_at),
                            low(m.a_at), w, matrices_.data() + parts_[i].master_at);
  }
}

void CudaAdapterTrainer::forward(const Packed& batch) {
  const AdapterShape& a = layout_.shape;
  const int64_t R = std::ssize(batch.positions), D = config_.dim;
  ids_.upload(batch.ids);
  labels_.upload(batch.labels);
  ImageRows image{positions_.data(), nullptr, parameters_.data() + layout_.b2_at, R};
  if (R > 0) {
    if (inner_.size() < R * a.hidden) {
      features_ = DeviceArray<bf16>(R * a.features);
      inner_ = DeviceArray<float>(R * a.hidden);
      gelu_ = DeviceArray<bf16>(R * a.hidden);
      d_gelu_ = DeviceArray<bf16>(R * a.hidden);
      rows_ = DeviceArray<float>(R * D);
      d_rows_ = DeviceArray<bf16>(R * D);
    }
    positions_.upload(batch.positions);
    features_.upload(to_bf16(batch.features));
    Gemm& gemm = network_.gemm();
    gemm.forward(features_.data(), low(layout_.w1_at), R, a.hidden, a.features, inner_.data());
    bias_gelu(parameters_.data() + layout_.b1_at, R, a.hidden, inner_.data(), gelu_.data(),
              stream_.get());
    gemm.forward(gelu_.data(), low(layout_.w2_at), R, D, a.hidden, rows_.data());
    image.rows = rows_.data();
  }
  network_.forward(weights_, ids_.data(), kept_, last_.data(), hidden_.data(), &image);
}

void CudaAdapterTrainer::losses(int64_t scored, bool gradient) {
  const int64_t T = network_.tokens(), V = config_.vocab, D = config_.dim;
  Gemm& gemm = network_.gemm();
  const float weight = 1.0f / static_cast<float>(scored);
  for (int64_t t = 0; t < T; t += options_.chunk) {
    const int64_t n = std::min(options_.chunk, T - t);
    gemm.forward(hidden_.data() + t * D, weights_.head, n, V, D, logits_.data());
    distill_loss({LossKind::kCrossEntropy, 0}, logits_.data(), logits_.data(), labels_.data() + t,
                 weight, n, V, loss_.data() + t, kl_.data() + t, nullptr,
                 gradient ? d_logits_.data() : nullptr, stream_.get());
    label_is_top(logits_.data(), labels_.data() + t, n, V, hit_.data() + t, stream_.get());
    if (gradient)
      gemm.backward_input(d_logits_.data(), weights_.head, n, V, D, d_hidden_.data() + t * D);
  }
}

void CudaAdapterTrainer::low_rank_backward(bool first) {
  const int64_t r = layout_.shape.rank;
  Gemm& gemm = network_.gemm();
  for (std::size_t i = 0; i < layout_.matrices.size(); ++i) {
    const AdapterMatrix& m = layout_.matrices[i];
    round_to_bf16(slot_gradients_.data() + parts_[i].master_at, m.N * m.K, dw_.data(),
                  stream_.get());
    // B^T dW, and (A dW^T)^T = dW A^T as the product of dW's and A's rows.
    gemm.backward_weight(low(m.b_at), dw_.data(), m.N, r, m.K, !first, gradients_.data() + m.a_at);
    float* db = gradients_.data() + m.b_at;
    if (first)
      gemm.forward(dw_.data(), low(m.a_at), m.N, r, m.K, db);
    else
      gemm.forward_add(dw_.data(), low(m.a_at), m.N, r, m.K, db, db);
  }
}

void CudaAdapterTrainer::bias_gradient(const bf16* dy, int64_t R, int64_t N, int64_t at,
                                       bool first) {
  bias_backward(dy, R, N, first ? gradients_.data() + at : bias_sum_.data(), partial_rows_.data(),
                stream_.get());
  if (!first) add(bias_sum_.data(), N, gradients_.data() + at, stream_.get());
}

void CudaAdapterTrainer::projector_backward(int64_t R, bool first) {
  const AdapterShape& a = layout_.shape;
  const int64_t D = config_.dim;
  Gemm& gemm = network_.gemm();
  take_rows(positions_.data(), scratch_.residual.data(), R, D, d_rows_.data(), stream_.get());
  gemm.backward_weight(d_rows_.data(), gelu_.data(), R, D, a.hidden, !first,
                       gradients_.data() + layout_.w2_at);
  bias_gradient(d_rows_.data(), R, D, layout_.b2_at, first);
  gemm.backward_input(d_rows_.data(), low(layout_.w2_at), R, D, a.hidden, d_gelu_.data());
  gelu_backward(inner_.data(), R * a.hidden, d_gelu_.data(), stream_.get());
  gemm.backward_weight(d_gelu_.data(), features_.data(), R, a.hidden, a.features, !first,
                       gradients_.data() + layout_.w1_at);
  bias_gradient(d_gelu_.data(), R, a.hidden, layout_.b1_at, first);
}

// Adds to the gradients, or, of the first batch, writes them.
void CudaAdapterTrainer::backward(const Packed& batch, bool first) {
  network_.backward(weights_, slots_, kept_, last_.data(), d_hidden_.data(), scratch_,
                    slot_gradients_.data());
  if (layout_.shape.rank > 0) low_rank_backward(first);
  const int64_t R = std::ssize(batch.positions);
  // A batch of text alone leaves the projector's part as it is, or 0.
  if (R > 0) projector_backward(R, false);
}

double CudaAdapterTrainer::total(const DeviceArray<float>& values) const {
  sum(values.data(), values.size(), partial_.data(), sums_.data() + 1, stream_.get());
  double result = 0;
  sums_.download({&result, 1}, 1);
  return result;
}

AdapterReport CudaAdapterTrainer::over(std::span<const AdapterSample> samples, bool gradient) {
  const int64_t scored = require_lawful(samples, config_, layout_, options_.S);
  if (std::ssize(samples) % options_.B != 0)
    throw Error(ExitCode::kUsage, "training samples (expected a multiple of " +
                                      std::to_string(options_.B) + ", found " +
                                      std::to_string(samples.size()) + ")");
  AdapterReport report;
  report.tokens = scored;
  for (std::size_t at = 0; at < samples.size(); at += size_of(options_.B)) {
    const Packed batch =
        pack(samples.subspan(at, size_of(options_.B)), options_.S, layout_.shape.features);
    forward(batch);
    losses(scored, gradient);
    if (gradient) backward(batch, at == 0);
    report.loss += total(loss_);
    report.correct += total(hit_) / static_cast<double>(scored);
  }
  return report;
}

AdapterReport CudaAdapterTrainer::step(std::span<const AdapterSample> samples,
                                       const AdamStep& projector, const AdamStep& low_rank,
                                       double gradient_limit) {
  gradients_.zero(stream_.get());
  AdapterReport report = over(samples, true);
  const int64_t own = layout_.projector, changes = layout_.size - own;
  if (changes > 0)
    scale(static_cast<float>(layout_.shape.alpha / static_cast<double>(layout_.shape.rank)),
          changes, gradients_.data() + own, stream_.get());
  square_sum(gradients_.data(), layout_.size, partial_.data(), sums_.data(), stream_.get());
  const auto update = [&](const AdamStep& how, int64_t at, int64_t n) {
    adam(rates(how), sums_.data(), gradient_limit, gradients_.data() + at, n,
         parameters_.data() + at, mean_.data() + at, square_.data() + at, stream_.get());
  };
  update(projector, 0, own);
  if (changes > 0) update(low_rank, own, changes);
  double squares = 0;
  sums_.download({&squares, 1});
  report.gradient_norm = std::sqrt(squares);
  if (!std::isfinite(report.loss) || !std::isfinite(squares))
    throw Error(ExitCode::kNumeric, "training diverged (loss " + std::to_string(report.loss) + ")",
                "use a lower learning rate");
  merge();
  return report;
}

void CudaAdapterTrainer::set_state(const AdapterState& state) {
  parameters_.upload(state.parameters);
  mean_.upload(state.mean);
  square_.upload(state.square);
  merge();
}

}  // namespace

std::unique_ptr<AdapterTrainer> make_adapter_trainer(const models::SourceModel& decoder,
                                                     AdapterLayout layout, std::vector<float> start,
                                                     const AdapterCuda& options) {
  return std::make_unique<CudaAdapterTrainer>(decoder, std::move(layout), std::move(start),
                                              options);
}

}  // namespace crumb::quant::train::cuda
