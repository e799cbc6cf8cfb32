// Pruned models: layers of their own sizes compute what the whole model does with the same parts
// silenced, with every kind of weights, bit for bit however they are run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/kv_cache.h"
#include "engine/memory.h"
#include "models/checkpoint.h"
#include "models/errors.h"
#include "quant/pruning.h"
#include "tests/engine/tiny.h"

namespace crumb {
namespace {

using models::layer_tensor;
using models::SourceModel;
using quant::Pruning;
using test::Format;

models::TinyOptions four_layers() {
  models::TinyOptions options;
  options.layers = 4;
  options.dim = 64;
  options.ffn = 128;
  options.heads = 6;
  options.kv_heads = 3;
  options.head_dim = 32;
  return options;
}

// The second layer goes; of the others some FFN units and KV heads do.
Pruning some_of(const models::ModelConfig& config) {
  Pruning pruning = quant::keep_all(config);
  pruning.kept.erase(pruning.kept.begin() + 1);
  std::erase_if(pruning.kept[0].units, [](int64_t u) { return u % 2 == 1; });
  pruning.kept[1].heads = {0, 2};
  pruning.kept[2].units.resize(96);
  pruning.kept[2].heads = {1};
  return pruning;
}

// The whole model, the parts that do not stay set to add nothing: columns of W_down and W_o.
SourceModel silenced(const SourceModel& whole, const Pruning& pruning) {
  SourceModel model = whole;
  model.read = [whole, pruning](std::string_view name, std::span<float> out) {
    whole.read(name, out);
    const auto& c = whole.config;
    for (int64_t layer = 0; layer < c.layers; ++layer) {
      const bool down = name == layer_tensor(layer, "mlp.down_proj");
      if (!down && name != layer_tensor(layer, "self_attn.o_proj")) continue;
      const auto kept = std::ranges::find(pruning.kept, layer, &quant::KeptLayer::source);
      const int64_t columns = down ? c.ffn : c.heads * c.head_dim;
      const int64_t width = down ? 1 : columns / c.kv_heads;  // of a unit, of a KV head's queries
      for (std::size_t i = 0; i < out.size(); ++i) {
        const int64_t part = static_cast<int64_t>(i) % columns / width;
        bool stays = kept != pruning.kept.end();
        if (stays) {
          const auto& parts = down ? kept->units : kept->heads;
          stays = std::ranges::find(parts, part) != parts.end();
        }
        if (!stays) out[i] = 0;
      }
    }
  };
  return model;
}

std::vector<float> logits_of(const SourceModel& model, const std::string& isa) {
  LoadOptions load;
  load.threads = 2;
  load.pin = false;
  load.isa = isa;
  SessionOptions session;
  session.kv = kernels::KvType::kF32;
  return test::all_logits(*Engine::from_source(model, load), test::some_ids(40, 300), session);
}

TEST(Pruned, EqualsTheWholeModelWithTheSamePartsSilenced) {
  const SourceModel whole = models::tiny_model(four_layers());
  const Pruning pruning = some_of(whole.config);
  const SourceModel rest = quant::prune(whole, pruning);
  ASSERT_EQ(rest.config.layers, 3);
  for (const char* isa : {"scalar", ""}) {
    const auto got = logits_of(rest, isa), want = logits_of(silenced(whole, pruning), isa);
    ASSERT_EQ(got.size(), want.size());
    double worst = 0, largest = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
      largest = std::max(largest, std::abs(static_cast<double>(want[i])));
    }
    EXPECT_LE(worst, 1e-5 * largest);
    // And not what the whole model computes.
    EXPECT_NE(got, logits_of(whole, isa));
  }
  EXPECT_EQ(logits_of(rest, "scalar"), logits_of(rest, ""));
}

void write_pruned(const Format& format, const std::string& path) {
  const SourceModel whole = models::tiny_model(four_layers());
  quant::QuantizeOptions options;
  quant::Method method;
  method.bits = format.bits;
  method.group = format.group;
  method.grid = format.grid;
  method.rotation = {format.hadamard, format.hadamard > 0 ? uint64_t{7} : 0};
  options.linear = options.embedding = options.head = method;
  options.pruning = some_of(whole.config);
  quant::quantize(quant::prune(whole, *options.pruning), options, path, {});
}

TEST(Pruned, PackedFilesComputeTheSameBitsHoweverTheyAreRun) {
  const test::TempDir dir;
  const auto ids = test::some_ids(75, 300);
  for (const Format& format :
       {Format{"int4_row_rotated", 4, 0, kernels::Grid::kSeq, 32},
        Format{"int3_g32_asym", 3, 32, kernels::Grid::kAsym}, Format{"int8_g64", 8, 64}}) {
    SCOPED_TRACE(format.name);
    const std::string path = dir.file(format.name);
    write_pruned(format, path);
    std::vector<float> want;
    for (const auto& [threads, isa] : {std::pair{1, "scalar"}, {1, ""}, {2, ""}, {3, ""}}) {
      LoadOptions load;
      load.threads = threads;
      load.pin = false;
      load.isa = isa;
      const auto engine = Engine::load(path, load);
      for (const int64_t chunk : {1, 7, 64}) {
        SessionOptions session;
        session.chunk = chunk;
        const auto got = test::all_logits(*engine, ids, session);
        if (want.empty()) want = got;
        ASSERT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0);
      }
    }
    // Near what the file's floats compute: what remains is int8 inputs and cache.
    const auto floats = logits_of(models::open_source(path), "");
    double worst = 0;
    for (std::size_t i = 0; i < floats.size(); ++i)  // of the first tokens
      worst = std::max(worst, std::abs(static_cast<double>(want[i] - floats[i])));
    EXPECT_LE(worst, 0.3);
  }
}

TEST(Pruned, CheckpointsKeepTheSizesAndCostLess) {
  const test::TempDir dir;
  const SourceModel whole = models::tiny_model(four_layers());
  write_pruned({"int4", 4, 32}, dir.file("pruned.crumb"));
  test::write_tiny({"int4", 4, 32}, dir.file("whole.crumb"), four_layers());
  const auto file = models::Checkpoint::open(dir.file("pruned.crumb"));
  const auto want = quant::pruned_config(whole.config, some_of(whole.config));
  EXPECT_EQ(file.config().pruned, want.pruned);
  EXPECT_EQ(file.config().whole_layers, 4);
  EXPECT_EQ(file.metadata().at("required"), "pruned");
  EXPECT_TRUE(file.verify().empty());
  const auto unpruned = models::Checkpoint::open(dir.file("whole.crumb"));
  EXPECT_EQ(unpruned.metadata().at("required"), "");
  EXPECT_EQ(unpruned.metadata().at("config").find("pruned"), std::string::npos);
  // 3 + 2 + 1 KV heads of 12.
  EXPECT_EQ(kv_heads_of_all(file.config()), 6);
  EXPECT_EQ(2 * kv_cache_bytes(file.config(), 64, kernels::KvType::kI8),
            kv_cache_bytes(unpruned.config(), 64, kernels::KvType::kI8));
}

TEST(Pruned, WindowsGoByTheLayersOfTheWholeModel) {
  models::ModelConfig config = models::tiny_model(four_layers()).config;
  config.block.window = 8;
  config.block.window_every = 2;  // layers 1 and 3 see all
  const auto rest = quant::pruned_config(config, some_of(config));
  EXPECT_EQ(models::window_of(rest, 0), 8);
  EXPECT_EQ(models::window_of(rest, 1), 8);  // was layer 2
  EXPECT_EQ(models::window_of(rest, 2), 0);  // was layer 3
}

}  // namespace
}  // namespace crumb
