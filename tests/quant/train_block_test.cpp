// A block's gradients against finite differences; the whole model's logits against the engine's.
#include "quant/train/block.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "models/tensors.h"
#include "quant/train/ops.h"
#include "tests/engine/tiny.h"
#include "tests/quant/finite_difference.h"

namespace crumb::quant::train {
namespace {

using Floats = std::vector<float>;

Floats read(const models::SourceModel& source, const std::string& name, int64_t n) {
  Floats values(static_cast<std::size_t>(n));
  source.read(name, values);
  return values;
}

models::TinyOptions qwen() {
  models::TinyOptions options;
  options.architecture = "qwen2";
  options.qkv_bias = true;
  options.tied_head = false;
  return options;
}

// [S, V]
Floats logits_of(const models::SourceModel& source, const std::vector<int32_t>& ids) {
  const models::ModelConfig& c = source.config;
  const auto S = std::ssize(ids);
  const Floats embedding = read(source, "model.embed_tokens", c.vocab * c.dim);
  Floats x(static_cast<std::size_t>(S * c.dim)), normed(x.size());
  for (int64_t t = 0; t < S; ++t)
    std::copy_n(embedding.begin() + ids[static_cast<std::size_t>(t)] * c.dim, c.dim,
                x.begin() + t * c.dim);
  const BlockContext context(c, S);
  BlockActivations activations(c, S);
  for (int64_t layer = 0; layer < c.layers; ++layer)
    block_forward(context, read_block(source, layer), x, activations, x);
  rmsnorm(x, read(source, "model.norm.weight", c.dim), c.norm_eps, normed);
  Floats logits(static_cast<std::size_t>(S * c.vocab));
  linear(normed, c.tied_head ? embedding : read(source, "lm_head", c.vocab * c.dim), {}, c.dim,
         logits);
  return logits;
}

TEST(TrainBlock, WholeModelHasTheEnginesLogits) {
  for (const auto& options : {models::TinyOptions{}, qwen()}) {
    const auto source = models::tiny_model(options);
    const auto ids = test::some_ids(100, options.vocab);
    const auto engine = test::tiny_engine({"f32", 32, 0}, {}, options);
    SessionOptions session;
    session.kv = kernels::KvType::kF32;
    const auto expected = test::all_logits(*engine, ids, session);
    const auto found = logits_of(source, ids);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-4) << i;
  }
}

// Plain blocks lack the norms of others.
bool has_tensor(const models::ModelConfig& config, const std::string& name) {
  return std::ranges::any_of(models::tensor_table(config),
                             [&](const models::TensorInfo& info) { return info.name == name; });
}

TEST(TrainBlock, TableNamesEveryTensor) {
  const auto source = models::tiny_model(qwen());
  const BlockWeights weights = read_block(source, 1);
  for (const BlockTensor& tensor : block_tensors()) {
    const Floats& found = weights.*tensor.member;
    const std::string name = models::layer_tensor(1, std::string(tensor.suffix));
    ASSERT_NE(found.empty(), has_tensor(source.config, name)) << tensor.suffix;
    if (found.empty()) continue;
    EXPECT_EQ(found, read(source, name, std::ssize(found)));
  }
  const BlockWeights zeros = zero_block(source.config);
  for (const BlockTensor& tensor : block_tensors())
    EXPECT_EQ((zeros.*tensor.member).size(), (weights.*tensor.member).size()) << tensor.suffix;
}

TEST(TrainBlock, Backward) {
  auto options = qwen();
  options.dim = 32;
  options.ffn = 48;
  options.head_dim = 8;
  const auto source = models::tiny_model(options);
  const int64_t S = 70;  // more than a tile of queries
  const BlockContext context(source.config, S);
  BlockWeights weights = read_block(source, 0), gradients = zero_block(source.config);
  BlockActivations activations(source.config, S), scratch(source.config, S);
  Floats x = random_weights(S * options.dim, 1, 1.0f), y(x.size()), dx(x.size());
  const Floats dy = random_weights(S * options.dim, 2, 1.0f);
  const auto loss = [&] {
    block_forward(context, weights, x, activations, y);
    return dot(y, dy);
  };
  loss();
  block_backward(context, weights, x, activations, dy, scratch, gradients, dx);
  expect_gradient("x", x, dx, loss);
  for (const BlockTensor& tensor : block_tensors()) {
    if ((weights.*tensor.member).empty()) continue;  // as has_tensor() says above
    // A key's bias adds the same to all scores of a query, but for RoPE.
    expect_gradient(std::string(tensor.suffix), weights.*tensor.member, gradients.*tensor.member,
                    loss, 1e-3, 3e-3f);
  }
}

}  // namespace
}  // namespace crumb::quant::train
