// A tiny teacher and the INT2 student that starts from it.
#pragma once
#include <filesystem>
#include <string>

#include "models/source.h"
#include "models/tiny_model.h"
#include "quant/quantize.h"
#include "quant/train/student.h"
#include "tests/quant/weights.h"

namespace crumb::quant::train {

struct TinyStart {
  models::SourceModel teacher, source;
  models::Checkpoint start;
  Student student;
};

// The start's file is `path`, which stays.
inline TinyStart tiny_start(const std::string& path, int64_t hadamard = 64, bool biases = false,
                            int bits = 2, int64_t group = 0,
                            kernels::Grid grid = kernels::Grid::kSeq, bool embedding = false,
                            int64_t head_dim = 64) {
  models::TinyOptions tiny;
  tiny.dim = 128;
  tiny.ffn = 192;
  tiny.head_dim = head_dim;
  tiny.vocab = 320;
  if (biases) tiny.architecture = "qwen2";
  tiny.qkv_bias = biases;
  models::SourceModel teacher = models::tiny_model(tiny);
  const models::Rotation rotation{hadamard, hadamard == 0 ? 0u : 1u};
  QuantizeOptions options;
  options.linear.bits = bits;
  options.embedding.bits = 4;
  for (Method* method : {&options.linear, &options.embedding}) {
    method->group = 0;
    method->rotation = rotation;
  }
  options.head = options.embedding;
  options.linear.group = group;
  options.linear.grid = grid;
  // More bits for two matrices, one of them inside a slot.
  options.bits = {{"model.layers.0.self_attn.v_proj", 4}, {"model.layers.1.mlp.down_proj", 3}};
  quantize(teacher, options, path, {});
  TinyStart start{
      std::move(teacher), models::open_source(path), models::Checkpoint::open(path), {}};
  start.student = student_from(start.start, start.teacher, 0, embedding);
  return start;
}

inline std::vector<int32_t> tiny_tokens(int64_t n, uint64_t seed) {
  std::vector<int32_t> ids;
  for (const float v : random_weights(n, seed, 1.0f))
    ids.push_back(static_cast<int32_t>(std::abs(v) * 1000) % 320);
  return ids;
}

}  // namespace crumb::quant::train
