#include "quant/train/loss.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace crumb::quant::train {
namespace {

double log_sum_exp(std::span<const float> z) {
  const auto top = static_cast<double>(*std::max_element(z.begin(), z.end()));
  double sum = 0;
  for (const float x : z) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

// Log probabilities of one token of the vocabulary.
struct Pair {
  double p, q;
};

// log m = log(beta p + (1 - beta) q), without leaving the logarithm.
double log_mixture(const Pair& lp, double beta) {
  const double top = std::max(lp.p, lp.q);
  return top + std::log(beta * std::exp(lp.p - top) + (1 - beta) * std::exp(lp.q - top));
}

struct Sums {
  double forward = 0, reverse = 0;            // KL(p || q), KL(q || p)
  double teacher_part = 0, student_part = 0;  // KL(p || m), KL(q || m)
};

}  // namespace

TokenLoss distill_loss(const LossOptions& options, std::span<const float> teacher,
                       std::span<const float> student, int32_t label, float weight,
                       std::span<float> gradient) {
  assert(teacher.size() == student.size());
  const double beta = static_cast<double>(options.beta);
  const double p_lse = log_sum_exp(teacher), q_lse = log_sum_exp(student);
  const auto logs = [&](std::size_t i) {
    return Pair{static_cast<double>(teacher[i]) - p_lse, static_cast<double>(student[i]) - q_lse};
  };
  Sums sums;
  for (std::size_t i = 0; i < teacher.size(); ++i) {
    const Pair l = logs(i);
    const double p = std::exp(l.p), q = std::exp(l.q), m = log_mixture(l, beta);
    sums.forward += p * (l.p - l.q);
    sums.reverse += q * (l.q - l.p);
    sums.teacher_part += p * (l.p - m);
    sums.student_part += q * (l.q - m);
  }
  TokenLoss result;
  result.kl = sums.forward;
  const float top_p = *std::max_element(teacher.begin(), teacher.end());
  const float top_q = *std::max_element(student.begin(), student.end());
  for (std::size_t i = 0; i < teacher.size(); ++i)
    result.agree = result.agree || (teacher[i] == top_p && student[i] == top_q);
  switch (options.kind) {
    case LossKind::kForwardKl:
      result.loss = sums.forward;
      break;
    case LossKind::kReverseKl:
      result.loss = sums.reverse;
      break;
    case LossKind::kJsd:
      result.loss = beta * sums.teacher_part + (1 - beta) * sums.student_part;
      break;
    case LossKind::kCakld:
      result.loss = beta * sums.reverse + (1 - beta) * sums.forward;
      break;
    case LossKind::kCrossEntropy:
      result.loss = -logs(static_cast<std::size_t>(label)).q;
      break;
  }
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const Pair l = logs(i);
    const double p = std::exp(l.p), q = std::exp(l.q);
    double d = q - p;
    const double reverse = q * (l.q - l.p - sums.reverse);
    if (options.kind == LossKind::kReverseKl) d = reverse;
    if (options.kind == LossKind::kCakld) d = beta * reverse + (1 - beta) * d;
    if (options.kind == LossKind::kJsd)
      d = (1 - beta) * q * (l.q - log_mixture(l, beta) - sums.student_part);
    if (options.kind == LossKind::kCrossEntropy)
      d = q - (static_cast<int32_t>(i) == label ? 1.0 : 0.0);
    gradient[i] = weight * static_cast<float>(d);
  }
  return result;
}

}  // namespace crumb::quant::train
