#include "quant/train/cuda/muon.h"

#include <algorithm>
#include <utility>

namespace crumb::quant::train::cuda {

Muon::Muon(const ParameterLayout& layout, Gemm& gemm, cudaStream_t stream)
    : gemm_(gemm), stream_(stream) {
  const auto layers = std::ssize(layout.layers);
  for (std::size_t i = 0; i < 4; ++i) {
    const MatrixSlot& slot = layout.layers.front()[i];
    // All layers are of one shape, so a slot stands equally far into each.
    const int64_t stride = layers > 1 ? layout.layers[1][i].master_at - slot.master_at : 0;
    int64_t at = slot.master_at;
    for (const int64_t N : slot.rows) {
      kinds_.push_back({{layers, N * slot.K, stride}, N, slot.K, at});
      at += N * slot.K;
    }
  }
}

void Muon::allocate() {
  int64_t values = 0, squares = 0;
  for (const Kind& kind : kinds_) {
    const int64_t side = std::min(kind.N, kind.K);
    values = std::max(values, kind.set.count * kind.set.size);
    squares = std::max(squares, kind.set.count * side * side);
  }
  for (DeviceArray<bf16>* array : {&x_, &next_}) *array = DeviceArray<bf16>(values);
  for (DeviceArray<bf16>* array : {&gram_, &polynomial_}) *array = DeviceArray<bf16>(squares);
  partial_ = DeviceArray<double>(kinds_.front().set.count * kMuonBlocks);
}

void Muon::step(const MuonStep& step, const double* squares, double limit, float* gradients,
                float* parameters, float* mean) {
  if (x_.size() == 0) allocate();
  for (const Kind& kind : kinds_) {
    float* u = gradients + kind.at;
    nesterov(kind.set, step.momentum, squares, limit, u, mean + kind.at, partial_.data(), stream_);
    normalise(kind.set, u, partial_.data(), 1.0f + kMuonMargin, x_.data(), stream_);
    take_step(kind.set, muon_length(step, kind.N, kind.K), orthogonalise(kind),
              parameters + kind.at, stream_);
  }
}

// From x_. The Gram matrix and its polynomial are those of the shorter side, and symmetric.
const bf16* Muon::orthogonalise(const Kind& kind) {
  const bool wide = kind.N <= kind.K;
  const int64_t side = std::min(kind.N, kind.K), batch = kind.set.count;
  for (const NewtonSchulz& s : kNewtonSchulz) {
    gemm_.batched(
        {wide ? Transposed::kW : Transposed::kX, batch, side, side, std::max(kind.N, kind.K)},
        x_.data(), x_.data(), nullptr, gram_.data());
    gemm_.batched({Transposed::kNone, batch, side, side, side, s.c, s.b}, gram_.data(),
                  gram_.data(), gram_.data(), polynomial_.data());
    gemm_.batched({Transposed::kNone, batch, kind.N, kind.K, side, 1.0f, s.a},
                  wide ? polynomial_.data() : x_.data(), wide ? x_.data() : polynomial_.data(),
                  x_.data(), next_.data());
    std::swap(x_, next_);
  }
  return x_.data();
}

}  // namespace crumb::quant::train::cuda
