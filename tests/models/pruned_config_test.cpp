// The record of a pruned model's sizes: there and back, and what is refused.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "models/config.h"
#include "models/errors.h"
#include "models/export.h"
#include "models/tensors.h"
#include "models/tiny_model.h"
#include "tests/support/temp_dir.h"

namespace crumb::models {
namespace {

ModelConfig pruned() {
  ModelConfig config = tiny_model().config;  // 2 layers, F 96, 4 heads of 2 KV heads
  config.whole_layers = 5;
  config.pruned = {{1, 64, 2}, {4, 96, 1}};
  return config;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(PrunedConfig, ComesBackAndShapesTheTensors) {
  const ModelConfig config = config_from_json(to_json(pruned()), "t");
  EXPECT_EQ(config.pruned, pruned().pruned);
  EXPECT_EQ(config.whole_layers, 5);
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const TensorInfo& tensor : tensor_table(config)) shapes[tensor.name] = tensor.shape;
  EXPECT_EQ(shapes["model.layers.0.mlp.down_proj"], (std::vector<int64_t>{64, 64}));
  EXPECT_EQ(shapes["model.layers.1.self_attn.q_proj"], (std::vector<int64_t>{32, 64}));
  EXPECT_EQ(shapes["model.layers.1.self_attn.k_proj"], (std::vector<int64_t>{16, 64}));
  const ModelConfig one = layer_config(config, 1);
  EXPECT_EQ(one.heads, 2);
  EXPECT_EQ(one.kv_heads, 1);
  EXPECT_TRUE(one.pruned.empty());
  EXPECT_EQ(to_json(tiny_model().config).find("pruned"), std::string::npos);
}

TEST(PrunedConfig, HostileSizesAreRefused) {
  const std::string text = to_json(pruned());
  const std::pair<const char*, const char*> changes[] = {
      {"[[1,64,2],[4,96,1]]", "[[1,64,2]]"},           // a layer is missing
      {"[[1,64,2],[4,96,1]]", "[[4,64,2],[1,96,1]]"},  // not ascending
      {"[[1,64,2],[4,96,1]]", "[[1,64,2],[1,96,1]]"},  // twice
      {"[[1,64,2],[4,96,1]]", "[[1,64,2],[5,96,1]]"},  // no such layer
      {"[[1,64,2],[4,96,1]]", "[[1,0,2],[4,96,1]]"},   // nothing left
      {"[[1,64,2],[4,96,1]]", "[[1,97,2],[4,96,1]]"},  // more than there was
      {"[[1,64,2],[4,96,1]]", "[[1,64,3],[4,96,1]]"},  // likewise
      {"[[1,64,2],[4,96,1]]", "[[1,64,0],[4,96,1]]"},  // no head
      {"[[1,64,2],[4,96,1]]", "[[1,64,-2],[4,96,1]]"},
      {"[[1,64,2],[4,96,1]]", "[[1,64.5,2],[4,96,1]]"},
      {"[[1,64,2],[4,96,1]]", "[[1,64],[4,96,1]]"},
      {"[[1,64,2],[4,96,1]]", "[[1,64,1e300],[4,96,1]]"},
      {"[[1,64,2],[4,96,1]]", "{}"},
      {"[[1,64,2],[4,96,1]]", "7"},
      {"\"layers\":5", "\"layers\":1"},
      {"\"layers\":5", "\"layers\":100000"},
      {"\"layers\":5,", ""},
      {"\"layers\":5", "\"layers\":5,\"more\":1"},
  };
  for (const auto& [from, to] : changes) {
    SCOPED_TRACE(to);
    EXPECT_THROW(config_from_json(replaced(text, from, to), "t"), FormatError);
  }
  ModelConfig empty = tiny_model().config;
  empty.whole_layers = 3;
  EXPECT_THROW(validate(empty, "t"), FormatError);
}

TEST(PrunedConfig, IsExportedOnlyIfAllLayersAreAlike) {
  const test::TempDir dir;
  SourceModel model = tiny_model();
  model.config = pruned();
  EXPECT_THROW(write_gguf(model, dir.file("m.gguf")), FormatError);
  EXPECT_FALSE(std::filesystem::exists(dir.file("m.gguf")));
  EXPECT_THROW(write_hugging_face(model, dir.file("m")), FormatError);
  // Two of five layers, else whole: a model of two layers to everybody.
  model.config.pruned = {{1, 96, 2}, {4, 96, 2}};
  write_gguf(model, dir.file("m.gguf"));
  const SourceModel back = open_source(dir.file("m.gguf"));
  EXPECT_TRUE(back.config.pruned.empty());
  EXPECT_EQ(back.config.layers, 2);
  EXPECT_THROW(require_whole(model.config, "this"), Error);
  EXPECT_NO_THROW(require_whole(back.config, "this"));
}

}  // namespace
}  // namespace crumb::models
