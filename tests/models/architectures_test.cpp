#include "models/architectures.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/errors.h"
#include "models/rope_scaling.h"

namespace crumb::models {
namespace {

ModelConfig phi_like() {
  ModelConfig config;
  config.layers = 1;
  config.dim = 64;
  config.ffn = 96;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.vocab = 10;
  config.context = 64;
  apply(*find_architecture("phi3"), config);
  return config;
}

TEST(Architectures, EveryRowNamesEveryTensor) {
  for (const char* name : {"gemma3", "llama", "phi3", "qwen2", "qwen3"}) {
    const Architecture* row = find_architecture(name);
    ASSERT_NE(row, nullptr);
    EXPECT_EQ(find_architecture_class(row->class_name), row);
    ModelConfig config = phi_like();
    apply(*row, config);
    config.tied_head = false;
    for (const TensorInfo& info : tensor_table(config)) {
      EXPECT_FALSE(gguf_place(info, *row, config).name.empty());
      EXPECT_FALSE(hugging_face_place(info, *row, config).name.empty());
    }
  }
  EXPECT_EQ(find_architecture("mamba"), nullptr);
  EXPECT_EQ(find_architecture_class(""), nullptr);
}

TEST(Architectures, FusedMatricesAreCutInOrder) {
  const ModelConfig config = phi_like();
  const Architecture& row = *find_architecture("phi3");
  const auto place = [&](const char* suffix) {
    return hugging_face_place({layer_tensor(0, suffix), {}, TensorRole::kLinear, 0}, row, config);
  };
  EXPECT_EQ(place("self_attn.q_proj").name, "model.layers.0.self_attn.qkv_proj.weight");
  EXPECT_EQ(place("self_attn.q_proj").first_row, 0);
  EXPECT_EQ(place("self_attn.k_proj").first_row, 64);
  EXPECT_EQ(place("self_attn.v_proj").first_row, 96);
  EXPECT_EQ(place("mlp.up_proj").first_row, 96);
  EXPECT_EQ(place("self_attn.o_proj").first_row, 0);
  const TensorInfo q{layer_tensor(0, "self_attn.q_proj"), {}, TensorRole::kLinear, 0};
  EXPECT_EQ(fused_rows(q, row, config), 128);
}

TEST(Architectures, GemmaNormsHaveOtherNamesAtHuggingFace) {
  const Architecture& row = *find_architecture("gemma3");
  ModelConfig config = phi_like();
  apply(row, config);
  const auto name = [&](const char* suffix) {
    return hugging_face_place({layer_tensor(0, suffix), {}, TensorRole::kNorm, 0}, row, config)
        .name;
  };
  EXPECT_EQ(name("post_attention_layernorm.weight"),
            "model.layers.0.pre_feedforward_layernorm.weight");
  EXPECT_EQ(name("attention_output_layernorm.weight"),
            "model.layers.0.post_attention_layernorm.weight");
}

TEST(Architectures, CalibrationRefusesOtherBlocksByName) {
  ModelConfig config = phi_like();
  EXPECT_NO_THROW(require_plain_block(config, "calibration"));
  apply(*find_architecture("qwen3"), config);
  EXPECT_THROW(require_plain_block(config, "calibration"), Error);
}

TEST(Config, BlockOptionsComeBackFromJson) {
  ModelConfig config = phi_like();
  config.block.window = 12;
  config.block.window_every = 6;
  config.block.rope_theta_local = 1e4f;
  config.block.rope_factors.assign(8, 2.5f);
  config.block.activation = Activation::kGeluTanh;
  EXPECT_EQ(config_from_json(to_json(config), "t").block, config.block);
  config.block.rope_factors.resize(3);
  EXPECT_THROW(validate(config, "t"), FormatError);
  config.block.rope_factors.assign(8, 0.0f);
  EXPECT_THROW(validate(config, "t"), FormatError);
}

TEST(Config, EveryFourthLayerMaySeeAll) {
  ModelConfig config = phi_like();
  config.block.window = 12;
  EXPECT_EQ(window_of(config, 3), 12);
  config.block.window_every = 4;
  EXPECT_EQ(window_of(config, 2), 12);
  EXPECT_EQ(window_of(config, 3), 0);
}

// Values of transformers 4.x, ROPE_INIT_FUNCTIONS, for the published configs.
TEST(RopeScaling, Llama3StretchesLongWavesOnly) {
  const auto scaling = llama3_scaling(64, 500000.0, 32.0, 1.0, 4.0, 8192.0);
  ASSERT_EQ(scaling.factors.size(), 32u);
  EXPECT_EQ(scaling.factors.front(), 1.0f);
  EXPECT_EQ(scaling.factors.back(), 32.0f);
  EXPECT_EQ(scaling.magnitude, 1.0f);
  int between = 0;
  for (std::size_t i = 1; i < scaling.factors.size(); ++i) {
    EXPECT_GE(scaling.factors[i], scaling.factors[i - 1]);
    if (scaling.factors[i] > 1.0f && scaling.factors[i] < 32.0f) ++between;
  }
  EXPECT_GT(between, 0);
}

TEST(RopeScaling, YarnKeepsFastPairsAndStretchesSlowOnes) {
  const auto scaling = yarn_scaling(128, {1e6, 4.0, 32768.0});
  EXPECT_EQ(scaling.factors.front(), 1.0f);
  EXPECT_EQ(scaling.factors.back(), 4.0f);
  EXPECT_NEAR(scaling.magnitude, 0.1 * std::log(4.0) + 1, 1e-6);
}

}  // namespace
}  // namespace crumb::models
