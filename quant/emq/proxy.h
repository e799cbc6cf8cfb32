// EMQ's symbolic proxies (arXiv:2307.10554): a branched tree of two terms, each through two unary
// operations, joined by a binary one, then the mean over a matrix' sample and the sum over
// matrices,
//   score(plan) = sum_i s_i(b_i),   s_i(b) = mean(binary(u2(u1(X)), u4(u3(Y)))) * f(b).
// Two modes: `times`, the paper's, multiplies by the width (f(b) = b); `err` has the rounding error
// E at the width as one more term instead (f = 1).
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/emq/terms.h"
#include "quant/method.h"

namespace crumb::quant::emq {

enum class Mode : uint8_t { kTimes, kErr };
inline constexpr Named<Mode> kModes[] = {{"times", Mode::kTimes}, {"err", Mode::kErr}};

// In place; those that give one number give it to all elements. Values that are not finite end a
// proxy (screening in evolve.h).
struct UnaryOp {
  const char* name;
  void (*apply)(std::span<float> x);
};
struct BinaryOp {
  const char* name;
  float (*apply)(float x, float y);
};
std::span<const UnaryOp> unary_ops();
std::span<const BinaryOp> binary_ops();

struct Proxy {
  Mode mode = Mode::kErr;
  std::array<int, 2> input{};                 // Term
  std::array<std::array<int, 2>, 2> unary{};  // of unary_ops(): first, then second, of each input
  int binary = 0;                             // of binary_ops()
  bool operator==(const Proxy&) const = default;
};

// "mean(square(abs(W)) * identity(G)) * b". Identities are left out, sides of a commutative
// operation stand in one order: equal formulas are equal proxies.
std::string formula(const Proxy& proxy);

// s_i at every width: [matrices][widths]; a value that is not finite stays.
using Scores = std::vector<std::vector<double>>;
Scores scores_of(const Proxy& proxy, std::span<const MatrixTerms> terms,
                 std::span<const int> widths);

// A plan's score; `plan` has the index of a width for every matrix.
double score_of(const Scores& scores, std::span<const int> plan);

// Proxies made by hand, to be beaten: sizes, errors of weights and of outputs, gradients.
struct HandMade {
  std::string name;
  Scores scores;
};
std::vector<HandMade> hand_made(std::span<const MatrixTerms> terms, std::span<const int> widths);

// {"mode", "inputs", "unary", "binary", "formula"} and back; throws Error(kUsage) for another text.
std::string to_json(const Proxy& proxy);
Proxy proxy_from_json(const std::string& text);

}  // namespace crumb::quant::emq
