// Distillation losses: gradients by finite differences, and the identities between them.
#include "quant/train/loss.h"

#include <cmath>

#include "tests/quant/finite_difference.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t V = 40;

struct LossCase {
  const char* name;
  LossOptions options;
};
void PrintTo(const LossCase& c, std::ostream* out) { *out << c.name; }

class Loss : public testing::TestWithParam<LossCase> {};

TEST_P(Loss, GradientIsTheFiniteDifference) {
  const auto teacher = random_weights(V, 1, 1.5f);
  auto student = random_weights(V, 2, 1.5f);
  const LossOptions& options = GetParam().options;
  std::vector<float> gradient(V);
  const TokenLoss found = distill_loss(options, teacher, student, 7, 1.0f, gradient);
  expect_gradient(GetParam().name, student, gradient,
                  [&] { return distill_loss(options, teacher, student, 7, 1.0f, {}).loss; });
  double sum = 0;  // a softmax's gradient has no part along the ones
  for (const float d : gradient) sum += static_cast<double>(d);
  EXPECT_NEAR(sum, 0, 1e-6);
  EXPECT_GT(found.loss, 0);
  std::vector<float> twice(V);
  distill_loss(options, teacher, student, 7, 2.0f, twice);
  for (std::size_t i = 0; i < twice.size(); ++i) EXPECT_FLOAT_EQ(twice[i], 2 * gradient[i]);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Loss,
                         testing::Values(LossCase{"ForwardKl", {LossKind::kForwardKl, 0.5f}},
                                         LossCase{"ReverseKl", {LossKind::kReverseKl, 0.5f}},
                                         LossCase{"Jsd10", {LossKind::kJsd, 0.1f}},
                                         LossCase{"Jsd50", {LossKind::kJsd, 0.5f}},
                                         LossCase{"Jsd90", {LossKind::kJsd, 0.9f}},
                                         LossCase{"Cakld30", {LossKind::kCakld, 0.3f}},
                                         LossCase{"CrossEntropy", {LossKind::kCrossEntropy, 0.5f}}),
                         [](const auto& one) { return std::string(one.param.name); });

double loss_of(LossKind kind, float beta, std::span<const float> p, std::span<const float> q) {
  return distill_loss({kind, beta}, p, q, 0, 1.0f, {}).loss;
}

TEST(LossIdentities, JsdIsBoundedSymmetricAtOneHalfAndZeroForEqualLogits) {
  const auto p = random_weights(V, 1, 4.0f), q = random_weights(V, 2, 4.0f);
  EXPECT_NEAR(loss_of(LossKind::kJsd, 0.5f, p, q), loss_of(LossKind::kJsd, 0.5f, q, p), 1e-12);
  EXPECT_LT(loss_of(LossKind::kJsd, 0.5f, p, q), std::log(2.0));
  auto shifted = p;  // the same distribution
  for (float& v : shifted) v += 2;
  EXPECT_NEAR(loss_of(LossKind::kJsd, 0.3f, p, shifted), 0, 1e-7);
}

TEST(LossIdentities, JsdOverBetaTendsToTheKlDivergences) {
  const auto p = random_weights(V, 1, 1.0f), q = random_weights(V, 2, 1.0f);
  const double forward = loss_of(LossKind::kForwardKl, 0, p, q);
  EXPECT_NEAR(loss_of(LossKind::kJsd, 1e-4f, p, q) / 1e-4, forward, 1e-2 * forward);
  EXPECT_NEAR(loss_of(LossKind::kJsd, 1 - 1e-4f, p, q) / 1e-4,
              loss_of(LossKind::kReverseKl, 0, p, q), 2e-2 * forward);
}

TEST(LossIdentities, TheLargestLogitsAgreeOnlyAtOnePlace) {
  const std::vector<float> p = {1, 3, 2}, same = {0, 5, 1}, other = {9, 5, 1};
  EXPECT_TRUE(distill_loss({}, p, same, 0, 1.0f, {}).agree);
  EXPECT_FALSE(distill_loss({}, p, other, 0, 1.0f, {}).agree);
}

}  // namespace
}  // namespace crumb::quant::train
