// Structural pruning: what is gathered, what is refused, and what counts as important.
#include "quant/pruning.h"

#include <gtest/gtest.h>

#include "models/errors.h"
#include "models/tiny_model.h"
#include "quant/importance.h"
#include "quant/recipe.h"
#include "tests/quant/tiny_start.h"

namespace crumb::quant {
namespace {

models::SourceModel whole_model() {
  models::TinyOptions options;
  options.layers = 3;
  options.qkv_bias = true;
  options.architecture = "qwen2";
  return models::tiny_model(options);  // D 64, F 96, 4 heads of 2 KV heads of 16
}

Pruning some_of(const models::ModelConfig& config) {
  Pruning pruning = keep_all(config);
  pruning.kept.erase(pruning.kept.begin());
  std::erase_if(pruning.kept[0].units, [](int64_t u) { return u % 3 == 0; });
  pruning.kept[1].heads = {1};
  return pruning;
}

std::vector<float> read(const models::SourceModel& model, const std::string& name) {
  for (const models::TensorInfo& tensor : models::tensor_table(model.config)) {
    if (tensor.name != name) continue;
    std::vector<float> values(static_cast<std::size_t>(models::weights_of(tensor)));
    model.read(name, values);
    return values;
  }
  return {};
}

TEST(Pruning, GathersRowsAndColumns) {
  const auto whole = whole_model();
  const Pruning pruning = some_of(whole.config);
  const auto rest = prune(whole, pruning);
  EXPECT_EQ(rest.config.layers, 2);
  EXPECT_NE(rest.hash, whole.hash);
  const auto up = read(whole, "model.layers.1.mlp.up_proj");
  const auto less = read(rest, "model.layers.0.mlp.up_proj");
  ASSERT_EQ(less.size(), std::size_t{64 * 64});
  for (std::size_t k = 0; k < 64; ++k) EXPECT_EQ(less[64 + k], up[2 * 64 + k]);  // unit 2 is second
  const auto down = read(whole, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(read(rest, "model.layers.0.mlp.down_proj")[64 + 2], down[96 + 4]);
  const auto bias = read(whole, "model.layers.2.self_attn.q_proj.bias");
  EXPECT_EQ(read(rest, "model.layers.1.self_attn.q_proj.bias"),
            std::vector<float>(bias.begin() + 32, bias.end()));
  EXPECT_EQ(read(rest, "model.layers.1.self_attn.o_proj").size(), std::size_t{64 * 32});
  EXPECT_EQ(read(rest, "model.norm.weight"), read(whole, "model.norm.weight"));
  // A block at a time: the same.
  const auto block = prune_block(whole.config, train::read_block(whole, 1), pruning.kept.front());
  const auto same = train::read_block(rest, 0);
  for (const train::BlockTensor& tensor : train::block_tensors())
    EXPECT_EQ(block.*tensor.member, same.*tensor.member) << tensor.suffix;
  EXPECT_EQ(pruned_config(whole.config, keep_all(whole.config)).pruned.size(), 0u);
}

TEST(Pruning, WhatTheModelHasNotIsRefused) {
  const auto config = whole_model().config;
  const auto refused = [&](const auto& change) {
    Pruning pruning = some_of(config);
    change(pruning);
    EXPECT_THROW(pruned_config(config, pruning), Error);
  };
  refused([](Pruning& p) { p.kept[0].units.clear(); });
  refused([](Pruning& p) { p.kept[0].units.back() = 96; });
  refused([](Pruning& p) { std::swap(p.kept[0].units[0], p.kept[0].units[1]); });
  refused([](Pruning& p) { p.kept[1].heads = {-1}; });
  refused([](Pruning& p) { std::swap(p.kept[0], p.kept[1]); });
  refused([](Pruning& p) { p.kept.clear(); });
  refused([](Pruning& p) { p.ffn = 128; });
  EXPECT_THROW(pruned_config(pruned_config(config, some_of(config)), some_of(config)), Error);
}

TEST(Pruning, TextThereAndBack) {
  const auto config = whole_model().config;
  const Pruning pruning = some_of(config);
  const std::string text = pruning_to_json(pruning);
  EXPECT_EQ(pruning_from_json(text, "t"), pruning);
  EXPECT_EQ(pruning_from_json(pruning_to_json(keep_all(config)), "t"), keep_all(config));
  for (const char* bad :
       {"", "[]", "{}", R"({"layers":2,"ffn":8,"kv_heads":1,"kept":7})",
        R"({"layers":2,"ffn":8,"kv_heads":1,"kept":[{"source":2}]})",
        R"({"layers":2,"ffn":8,"kv_heads":1,"kept":[{"source":0,"units":"f"}]})",
        R"({"layers":2,"ffn":8,"kv_heads":1,"kept":[{"source":0,"units":"zz"}]})",
        R"({"layers":2,"ffn":8,"kv_heads":1,"kept":[{"source":0,"units":"00"}]})",
        R"({"layers":2,"ffn":6,"kv_heads":1,"kept":[{"source":0,"units":"08"}]})",
        R"({"layers":2,"ffn":8,"kv_heads":1,"kept":[{"source":0},{"source":1},{"source":1}]})",
        R"({"layers":-1,"ffn":8,"kv_heads":1,"kept":[]})",
        R"({"layers":2,"ffn":1e99,"kv_heads":1,"kept":[]})"})
    EXPECT_THROW(pruning_from_json(bad, "t"), FormatError) << bad;
  // And in a recipe.
  QuantizeOptions options;
  options.pruning = pruning;
  const auto rest = prune(whole_model(), pruning);
  const Recipe recipe = parse_recipe(recipe_json(rest, options), "t");
  EXPECT_EQ(recipe.options.pruning, pruning);
  EXPECT_EQ(recipe.source_hash, rest.hash);
}

// Units whose column of W_down is large add more; heads likewise by W_o.
TEST(Importance, FollowsWhatIsAdded) {
  models::SourceModel model = models::tiny_model();
  const auto read = model.read;
  model.read = [read](std::string_view name, std::span<float> out) {
    read(name, out);
    if (name == "model.layers.0.mlp.down_proj")
      for (std::size_t i = 0; i < out.size(); ++i) out[i] *= i % 96 < 48 ? 0.0f : 1.0f;
    if (name == "model.layers.1.self_attn.o_proj")
      for (std::size_t i = 0; i < out.size(); ++i) out[i] *= i % 64 < 32 ? 0.1f : 1.0f;
  };
  CalibrationWindows windows{32, {}};
  for (int32_t i = 0; i < 64; ++i) windows.ids.push_back(3 + i * 7 % 256);
  const auto importance = measure_importance(model, windows, 2, {});
  ASSERT_EQ(importance.size(), 2u);
  EXPECT_EQ(importance[0].units[0], 0);
  EXPECT_GT(importance[0].units[95], 0);
  EXPECT_GT(importance[1].heads[1], 3 * importance[1].heads[0]);
  EXPECT_GT(importance[0].influence, 0);
  const KeptLayer kept = most_important(importance[0], 0, 48, 1);
  for (const int64_t unit : kept.units) EXPECT_GE(unit, 48);
  EXPECT_EQ(most_important(importance[1], 1, 96, 1).heads, std::vector<int64_t>{1});
  // The same for any number of threads.
  const auto again = measure_importance(model, windows, 1, {});
  EXPECT_EQ(again[1].heads, importance[1].heads);
  EXPECT_EQ(again[0].units, importance[0].units);
}

}  // namespace
}  // namespace crumb::quant
