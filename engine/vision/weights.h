// The tensors of tower and projector bound for execution. A checkpoint's stay in its mapping: an
// image is read once, a token's weights again and again.
#pragma once
#include <span>
#include <vector>

#include "engine/weights.h"
#include "models/checkpoint.h"
#include "models/source.h"

namespace crumb::vision {

// y = W x + bias, the input prepared as `in` says.
struct Matrix {
  Linear w;
  Site in;
  std::span<const float> bias;  // [N] or empty
};

struct Norm {
  std::span<const float> weight, bias;  // [D], both empty if there is none
};

struct Block {
  Norm norm1, norm2;
  Matrix q, k, v, o, fc1, fc2;            // q, k and v share the input of q
  std::span<const float> scale1, scale2;  // [D] or empty
};

struct Weights {
  Matrix patch;
  std::span<const float> class_row;  // [D] or empty
  std::span<const float> position;   // [tokens, D]
  Norm pre, last;
  std::vector<Block> blocks;
  Matrix linear_1, linear_2;  // linear_2.w.N is 0 if there is only one

  std::vector<std::vector<float>> sign_store;
  std::vector<std::vector<float>> float_store;  // of a source; empty for a checkpoint
};

// Both throw FormatError if q, k and v ask for different rotations; the model must see.
Weights bind(const models::Checkpoint& checkpoint);
Weights read(const models::SourceModel& source);

}  // namespace crumb::vision
