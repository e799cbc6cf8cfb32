// Distillation losses between a teacher's and a student's logits of one token, and their gradients.
// With p = softmax(teacher), q = softmax(student), m = beta p + (1 - beta) q:
//   forward KL     KL(p || q)                               d/dz_i = q_i - p_i
//   reverse KL     KL(q || p)                               d/dz_i = q_i (log(q_i / p_i) - loss)
//   JSD(beta)      beta KL(p || m) + (1 - beta) KL(q || m)  d/dz_i = (1 - beta) q_i (log(q_i / m_i)
//                                                                    - sum_k q_k log(q_k / m_k))
//   CAKLD(gamma)   gamma KL(q || p) + (1 - gamma) KL(p || q)   (BitDistiller, arXiv:2402.10631)
//   cross entropy  -log q_label                             d/dz_i = q_i - [i = label]
// JSD is UPQ's (arXiv:2506.09104); JSD / beta -> forward KL as beta -> 0.
#pragma once
#include <cstdint>
#include <span>

namespace crumb::quant::train {

enum class LossKind : uint8_t { kForwardKl, kReverseKl, kJsd, kCakld, kCrossEntropy };

struct LossOptions {
  LossKind kind = LossKind::kForwardKl;
  float beta = 0.5f;  // JSD's beta, CAKLD's gamma
};

struct TokenLoss {
  double loss = 0;
  double kl = 0;       // KL(p || q) whatever the loss
  bool agree = false;  // a largest logit of both stands at one place
};

// teacher, student, gradient [V]; sums in double. `label` is used by cross entropy only. An empty
// gradient is skipped; it is written, weight * dLoss/dstudent. `loss` is not multiplied.
TokenLoss distill_loss(const LossOptions& options, std::span<const float> teacher,
                       std::span<const float> student, int32_t label, float weight,
                       std::span<float> gradient);

}  // namespace crumb::quant::train
