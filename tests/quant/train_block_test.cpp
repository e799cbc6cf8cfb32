// A block's gradients against finite differences; the whole model's logits against the engine's.
#include "quant/train/block.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

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

TEST(TrainBlock, TableNamesEveryTensor) {
  auto gemma = qwen();
  gemma.architecture = "gemma3";
  gemma.qkv_bias = false;
  gemma.block.qk_norm = gemma.block.post_norms = true;
  std::set<std::string_view> named;
  for (const auto& options : {qwen(), gemma}) {
    const auto source = models::tiny_model(options);
    const BlockWeights weights = read_block(source, 1);
    const BlockWeights zeros = zero_block(source.config);
    std::size_t found = 0;
    for (const BlockTensor& tensor : block_tensors()) {
      const Floats& values = weights.*tensor.member;
      EXPECT_EQ((zeros.*tensor.member).size(), values.size()) << tensor.suffix;
      if (values.empty()) continue;
      ++found;
      named.insert(tensor.suffix);
      EXPECT_EQ(values, read(source, models::layer_tensor(1, std::string(tensor.suffix)),
                             std::ssize(values)));
    }
    const auto table = models::tensor_table(source.config);
    EXPECT_EQ(std::count_if(table.begin(), table.end(),
                            [](const models::TensorInfo& info) { return info.layer == 1; }),
              static_cast<std::ptrdiff_t>(found));
  }
  EXPECT_EQ(named.size(), block_tensors().size());
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
    if ((weights.*tensor.member).empty()) continue;  // of other families' blocks
    // A key's bias adds the same to all scores of a query, but for RoPE.
    expect_gradient(std::string(tensor.suffix), weights.*tensor.member, gradients.*tensor.member,
                    loss, 1e-3, 3e-3f);
  }
}

}  // namespace
}  // namespace crumb::quant::train
