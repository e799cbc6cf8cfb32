// Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) for one matrix W [N, K]:
// Nesterov momentum whose direction is replaced by the nearest matrix of equal singular values.
//   m <- momentum m + g,   u = g + momentum m,   O ~ U V^T of u = U S V^T,
//   w -= rate kMuonRms sqrt(max(N, K)) O
// The last factor gives the step AdamW's typical root mean square, so that both take one rate
// (Moonlight, arXiv:2502.16982). There is no weight decay: masters must stay near their cells.
//
// O comes from X_0 = u / ((1 + kMuonMargin) |u|_F), X <- a X + b X X^T X + c X (X^T X)^2 with the
// coefficients of Polar Express (arXiv:2505.16932), made for five steps: singular values between
// 1e-3 |u|_F and |u|_F end within kMuonBand, smaller ones between 0 and that. On the GPU the
// products are in bf16, here in float.
#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace crumb::quant::train {

struct MuonStep {
  float rate = 0, momentum = 0.95f;
};

struct NewtonSchulz {
  float a, b, c;
};
inline constexpr std::array<NewtonSchulz, 5> kNewtonSchulz = {{{8.15655f, -22.48329f, 15.87877f},
                                                               {4.04293f, -2.80892f, 0.50002f},
                                                               {3.89167f, -2.77248f, 0.50606f},
                                                               {3.28575f, -2.36813f, 0.46449f},
                                                               {2.34654f, -1.70978f, 0.42324f}}};
inline constexpr float kMuonMargin = 0.02f, kMuonRms = 0.2f;
inline constexpr std::array<float, 2> kMuonBand = {0.84f, 1.15f};

// The step's length for an O of this shape.
float muon_length(const MuonStep& step, int64_t N, int64_t K);

// x [N, K] in place: u -> O. Zeros stay zeros.
void orthogonalise(std::span<float> x, int64_t N, int64_t K);

// g, w, mean [N, K], mean is m; every g is multiplied by `gradient_factor` first (clipping).
void muon(const MuonStep& step, std::span<const float> g, float gradient_factor, int64_t N,
          int64_t K, std::span<float> w, std::span<float> mean);

}  // namespace crumb::quant::train
