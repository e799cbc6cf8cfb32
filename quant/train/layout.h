// Where everything that Distill-QAT trains stands in one array of floats:
//   masters of all matrices of the blocks, then of the embedding if it is trained | norm gains [2 L
//   + 1, D] | biases of q k v [L, rows], if the model has them | log scales of all rows, or of all
//   groups of columns of all rows
// A slot is one or more matrices of the model with the same input, stacked: they are one product.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/config.h"

namespace crumb::quant::train {

struct MatrixSlot {
  std::vector<std::string> names;  // of models/tensors.h, in the order of their rows
  std::vector<int64_t> rows;       // of each
  int64_t N = 0, K = 0;            // all rows, input columns
  int64_t master_at = 0;           // [N, K]
  int64_t groups = 1;              // log scales of a row
  int64_t scale_at = 0;            // [N, groups] log scales
  int64_t bias_at = -1;            // [N], -1: none
};

struct ParameterLayout {
  std::vector<std::array<MatrixSlot, 4>> layers;  // q k v | o | gate up | down
  std::optional<MatrixSlot> embedding;            // [V, D], also the head; absent: frozen
  int64_t block_masters = 0;                      // weights of the blocks' matrices
  int64_t masters = 0;                            // weights of all matrices
  int64_t norms_at = 0, norms = 0;                // gains: input, post-attention of layer 0, ..
  int64_t biases_at = 0, biases = 0;
  int64_t scales_at = 0, scales = 0;
  int64_t group = 0;  // columns that share a scale in all matrices wider than that; 0: rows
  int64_t size = 0;
  int64_t norm_at(int64_t index, int64_t D) const { return norms_at + index * D; }
};

// One matrix of a slot.
struct MatrixPart {
  std::string name;
  int64_t N = 0, K = 0;
  int64_t master_at = 0, scale_at = 0;
  int64_t bias_at = -1;  // [N], -1: none
  int64_t groups = 1;    // log scales of a row
};
// All of them: q k v o gate up down of layer 0, of layer 1, .., and the embedding if it is trained.
std::vector<MatrixPart> matrix_parts(const ParameterLayout& layout);

// group: 32, 64, 128, or 0 for one scale a row. `embedding`: it is trained too, with one scale a
// row.
ParameterLayout parameter_layout(const models::ModelConfig& config, int64_t group = 0,
                                 bool embedding = false);

}  // namespace crumb::quant::train
