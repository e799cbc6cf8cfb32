// A student on the host: its parameters in one array and the form its matrices are stored in. It
// starts from a packed checkpoint and ends as one.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/source.h"
#include "quant/train/layout.h"

namespace crumb::quant::train {

// The form of one matrix of the blocks.
struct MatrixForm {
  int bits = 2;
  kernels::Grid grid = kernels::Grid::kSeq;
  bool operator==(const MatrixForm&) const = default;
};

struct Student {
  models::ModelConfig config;
  models::Rotation rotation;  // of all matrices: hadamard 0 or 64
  ParameterLayout layout;
  std::vector<MatrixPart> parts;  // of the layout
  std::vector<MatrixForm> forms;  // of the parts
  std::vector<float> parameters;  // [layout.size]
  // Zero points of the parts, [N, groups], as the start has them: they are not trained. Empty but
  // on the asym grid.
  std::vector<std::vector<uint8_t>> zeros;
};

// Masters are the weights of `masters` (the teacher, or as in UPQ its INT4 form), rotated and moved
// into the cells of the codes of `start` (quant/train/fake_quant.h); scales, norms and biases are
// those of `start`. `embedding`: it is trained too, as a matrix of one scale a row and the blocks'
// rotation. Throws Error: kBadFile if the two are not the same model, kUsage if a matrix of `start`
// has more than one width, or another rotation or group size than the first, or if an embedding
// that is not the head should be trained; what reading throws.
Student student_from(const models::Checkpoint& start, const models::SourceModel& masters,
                     int threads = 0, bool embedding = false);

// For what knows neither groups nor zero points: throws Error(kUsage) naming `what` if the student
// has any.
void require_rows(const Student& student, const std::string& what);

// What is trained (matrices, norms, biases) from the student; everything else as in `start`,
// whose recipe gets `stage` (a JSON object) appended to its stages. The stored codes and scales are
// those of the fake-quantized forward pass. Returns the size of the file.
uint64_t export_student(const Student& student, const models::Checkpoint& start,
                        const std::string& stage, const std::string& path, int threads = 0);

}  // namespace crumb::quant::train
