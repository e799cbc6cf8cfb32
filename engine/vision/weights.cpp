#include "engine/vision/weights.h"

#include <functional>
#include <map>
#include <string>

namespace crumb::vision {
namespace {

// Where tensors come from: a checkpoint, or a source read into floats.
struct Binder {
  const models::ModelConfig& config;
  std::function<models::MatrixView(const std::string&)> matrix;
  std::function<std::span<const float>(const std::string&)> vector;
};

Norm bind_norm(const Binder& from, const std::string& name) {
  return {from.vector(name + ".weight"), from.vector(name + ".bias")};
}

Matrix bind_matrix(const Binder& from, Weights& weights, const std::string& name, int64_t N,
                   int64_t K, bool bias) {
  const models::MatrixView view = from.matrix(name);
  Matrix matrix;
  matrix.w = {view.bands, view.f32, N, K};
  matrix.in = shared_site(weights.sign_store, {view}, K, name);
  if (bias) matrix.bias = from.vector(name + ".bias");
  return matrix;
}

Block bind_block(const Binder& from, Weights& weights, int64_t layer) {
  const models::VisionConfig& v = *from.config.vision;
  const std::string in = models::vision_tensor(layer, "");
  const auto matrix = [&](const char* name, int64_t N, int64_t K) {
    return bind_matrix(from, weights, in + name, N, K, true);
  };
  Block block;
  block.norm1 = bind_norm(from, in + "norm1");
  block.q = matrix("q_proj", v.dim, v.dim);
  block.k = matrix("k_proj", v.dim, v.dim);
  block.v = matrix("v_proj", v.dim, v.dim);
  block.q.in = shared_site(
      weights.sign_store,
      {from.matrix(in + "q_proj"), from.matrix(in + "k_proj"), from.matrix(in + "v_proj")}, v.dim,
      "vision layer " + std::to_string(layer) + ": q, k, v");
  block.o = matrix("o_proj", v.dim, v.dim);
  block.norm2 = bind_norm(from, in + "norm2");
  block.fc1 = matrix("fc1", v.ffn, v.dim);
  block.fc2 = matrix("fc2", v.dim, v.ffn);
  if (v.layer_scale) {
    block.scale1 = from.vector(in + "scale1");
    block.scale2 = from.vector(in + "scale2");
  }
  return block;
}

Weights bind_all(const Binder& from) {
  const models::VisionConfig& v = *from.config.vision;
  Weights weights;
  weights.patch =
      bind_matrix(from, weights, "vision.patch_embed", v.dim, 3 * v.patch * v.patch, v.patch_bias);
  if (v.class_token) weights.class_row = from.vector("vision.class_embed");
  weights.position = from.vector("vision.position_embed");
  if (v.pre_norm) weights.pre = bind_norm(from, "vision.pre_norm");
  for (int64_t layer = 0; layer < v.layers; ++layer)
    weights.blocks.push_back(bind_block(from, weights, layer));
  if (v.final_norm) weights.last = bind_norm(from, "vision.final_norm");
  const int64_t out = from.config.dim, columns = models::projector_columns(v);
  weights.linear_1 = bind_matrix(from, weights, "projector.linear_1", v.hidden > 0 ? v.hidden : out,
                                 columns, v.projector_bias);
  if (v.hidden > 0)
    weights.linear_2 =
        bind_matrix(from, weights, "projector.linear_2", out, v.hidden, v.projector_bias);
  return weights;
}

}  // namespace

Weights bind(const models::Checkpoint& checkpoint) {
  return bind_all({checkpoint.config(),
                   [&](const std::string& name) { return checkpoint.matrix(name); },
                   [&](const std::string& name) { return checkpoint.vector(name); }});
}

Weights read(const models::SourceModel& source) {
  std::vector<std::vector<float>> store;
  std::map<std::string, std::span<const float>> floats;
  for (const models::TensorInfo& info : models::vision_table(source.config)) {
    store.emplace_back(static_cast<std::size_t>(models::weights_of(info)));
    source.read(info.name, store.back());
    // A vector's values stay where they are when the vector is moved.
    floats.emplace(info.name, store.back());
  }
  Weights weights = bind_all({source.config,
                              [&](const std::string& name) {
                                models::MatrixView view;
                                view.f32 = floats.at(name);
                                return view;
                              },
                              [&](const std::string& name) { return floats.at(name); }});
  weights.float_store = std::move(store);
  return weights;
}

}  // namespace crumb::vision
