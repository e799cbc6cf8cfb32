// One matrix through one method: rotate, fit scales, round, pack, measure.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/calibration.h"
#include "quant/linalg.h"
#include "quant/method.h"
#include "quant/report.h"

namespace crumb::quant {

// An input's second moments in the space of the stored weights (rotated like them), and their
// factor for LDLQ. Matrices with the same input share it if prepared_alike() says so of their
// methods.
struct PreparedInput {
  std::vector<double> H;         // [K, K]
  std::vector<float> diagonal;   // [K] of H
  std::optional<Factor> factor;  // LDLQ only
};
bool prepared_alike(const Method& a, const Method& b);
// `name` is for messages. Throws what factor() throws.
PreparedInput prepare_input(std::span<const double> H, int64_t K, const Method& method,
                            const std::string& name, int threads);

struct TensorReport {
  std::string name;
  Distortion distortion;
  // tr(E H E^T) / tr(W H W^T): the part of the output's energy that is lost on the calibration
  // inputs. Only with statistics.
  std::optional<double> output_error;
  double damping = 0;           // the rung LDLQ needed; 0 for other roundings
  bool damping_raised = false;  // that is more than the method's
  double shift_damping = 0;     // if it had to be raised (quant/shift.h), the rung; else 0
  int64_t dead = 0;             // columns whose calibration input was always 0
};

struct MatrixResult {
  models::PackedData packed;
  TensorReport report;
};
// w [N, K] row-major. `input` may be null for methods that need no statistics. Deterministic and
// independent of the number of threads. Throws Error: validate(), require_finite().
MatrixResult round_matrix(std::span<const float> w, int64_t N, int64_t K, const Method& method,
                          const PreparedInput* input, const std::string& name, int threads);

// [N, K]: the weights a packed matrix stands for, rotation undone.
std::vector<float> restore(const models::PackedData& packed, int threads);

}  // namespace crumb::quant
