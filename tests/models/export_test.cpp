// Models written for other programs and read back: the same floats, config and vocabulary.
#include "models/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "models/errors.h"
#include "models/export_blocks.h"
#include "models/hugging_face_config.h"
#include "tests/models/support.h"

namespace crumb::models {
namespace {

using testing::HasSubstr;

TinyOptions options_of(const std::string& architecture) {
  TinyOptions options;
  options.architecture = architecture;
  options.qkv_bias = architecture == "qwen2";
  options.block.qk_norm = architecture == "qwen3" || architecture == "gemma3";
  if (architecture == "gemma3") {
    options.layers = 3;
    options.block.post_norms = true;
    options.block.activation = Activation::kGeluTanh;
    options.block.embedding_scale = 8;  // sqrt(64)
    options.block.window = 32;
    options.block.window_every = 3;
    options.block.rope_theta_local = 10000;
    options.block.rope_factors.assign(8, 8.0f);
  }
  return options;
}

// A SentencePiece vocabulary of the same size, with what such files have.
Vocab sentencepiece_vocab(std::size_t V) {
  Vocab vocab;
  vocab.model = "llama";
  vocab.pre = "default";
  vocab.tokens = {"<unk>", "<s>", "</s>", "\u2581\u2581"};
  vocab.types = {TokenType::kUnknown, TokenType::kControl, TokenType::kControl,
                 TokenType::kUserDefined};
  while (vocab.tokens.size() < V) {
    vocab.tokens.push_back("t" + std::to_string(vocab.tokens.size()));
    vocab.types.push_back(TokenType::kNormal);
  }
  for (std::size_t id = 0; id < V; ++id) vocab.scores.push_back(-static_cast<float>(id));
  vocab.unk = 0;
  vocab.bos = 1;
  vocab.eos = 2;
  vocab.add_bos = vocab.add_space_prefix = true;
  return vocab;
}

void expect_same(const SourceModel& a, const SourceModel& b, float tolerance) {
  ModelConfig config = b.config;
  config.name = a.config.name;
  EXPECT_EQ(to_json(config), to_json(a.config));
  EXPECT_EQ(a.vocab.model, b.vocab.model);
  EXPECT_EQ(a.vocab.pre, b.vocab.pre);
  EXPECT_EQ(a.vocab.tokens, b.vocab.tokens);
  EXPECT_EQ(a.vocab.types, b.vocab.types);
  EXPECT_EQ(a.vocab.scores, b.vocab.scores);
  EXPECT_EQ(a.vocab.merges, b.vocab.merges);
  EXPECT_EQ(a.vocab.bos, b.vocab.bos);
  EXPECT_EQ(a.vocab.eos, b.vocab.eos);
  EXPECT_EQ(a.vocab.add_bos, b.vocab.add_bos);
  EXPECT_EQ(a.vocab.add_space_prefix, b.vocab.add_space_prefix);
  EXPECT_EQ(a.vocab.stop, b.vocab.stop);
  EXPECT_EQ(a.chat_template, b.chat_template);
  for (const TensorInfo& info : tensor_table(a.config)) {
    const auto x = test::read_tensor(a, info), y = test::read_tensor(b, info);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], tolerance) << info.name;
  }
}

class Export : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Architectures, Export,
                         testing::Values("llama", "qwen2", "qwen3", "gemma3"));

TEST_P(Export, ComesBackFromAHuggingFaceFolder) {
  const test::TempDir dir;
  SourceModel model = tiny_model(options_of(GetParam()));
  write_hugging_face(model, dir.dir().string());
  // A norm of 1 + w in float, where w is stored.
  expect_same(model, open_source(dir.dir().string()),
              std::string(GetParam()) == "gemma3" ? 1e-6f : 0.0f);
  model.vocab = sentencepiece_vocab(model.vocab.tokens.size());
  std::filesystem::remove(dir.file("tokenizer.json"));
  write_hugging_face(model, dir.dir().string(), FloatType::kF16);
  expect_same(model, open_source(dir.dir().string()), 1e-3f);
}

TEST_P(Export, ComesBackFromAGgufFile) {
  const test::TempDir dir;
  SourceModel model = tiny_model(options_of(GetParam()));
  write_gguf(model, dir.file("m.gguf"), FloatType::kF16);
  expect_same(model, open_source(dir.file("m.gguf")), 1e-3f);
  model.vocab = sentencepiece_vocab(model.vocab.tokens.size());
  write_gguf(model, dir.file("m.gguf"));
  expect_same(model, open_source(dir.file("m.gguf")), 0.0f);
}

// Every width, grid and kind of group, one a matrix; and what of it GGUF's blocks hold exactly.
struct Packed {
  int bits;
  kernels::Grid grid;
  int64_t group;          // 0: one scale a row
  const char* exact;      // type of --type packed
  const char* with_q4_1;  // of --type q4_1
};
using kernels::Grid;
constexpr Packed kPacked[] = {
    {2, Grid::kSeq, 0, "Q2_K", "Q2_K"},   {2, Grid::kLsq, 0, "Q2_K", "Q2_K"},
    {2, Grid::kAsym, 0, "Q2_K", "Q2_K"},  {2, Grid::kSeq, 64, "Q4_0", "Q4_0"},
    {2, Grid::kAsym, 32, "Q4_0", "Q4_0"}, {3, Grid::kSeq, 128, "Q4_0", "Q4_0"},
    {3, Grid::kLsq, 0, "Q4_0", "Q4_0"},   {3, Grid::kAsym, 64, "Q4_0", "Q4_0"},
    {4, Grid::kSeq, 64, "Q5_0", "Q4_1"},  {4, Grid::kLsq, 32, "Q4_0", "Q4_0"},
    {4, Grid::kAsym, 64, "Q5_0", "Q4_1"}, {8, Grid::kLsq, 0, "Q8_0", "Q8_0"},
    {8, Grid::kSeq, 0, "F16", "F16"},     {8, Grid::kAsym, 64, "F16", "F16"},
};

TEST(ExportPacked, BlocksHoldTheSameWeights) {
  const test::TempDir dir;
  TinyOptions options = options_of("qwen3");  // whose query and key rows are permuted
  options.layers = 2;
  options.dim = options.ffn = 256;
  options.head_dim = 64;
  const SourceModel tiny = tiny_model(options);
  std::vector<MatrixPlan> plans;
  for (const TensorInfo& info : tensor_table(tiny.config)) {
    if (!may_be_quantized(info.role)) continue;
    const Packed& packed = kPacked[plans.size() % std::size(kPacked)];
    const int64_t K = info.shape[1];
    MatrixPlan plan;
    plan.name = info.name;
    plan.bits = packed.bits;
    plan.group = packed.group == 0 ? K : packed.group;
    plan.grid = packed.grid;
    plans.push_back(plan);
  }
  ASSERT_GE(plans.size(), std::size(kPacked));
  test::write_crumb(dir.file("m.crumb"), tiny, plans);
  const SourceModel source = open_source(dir.file("m.crumb"));
  for (const BlockUse use : {BlockUse::kExact, BlockUse::kQ4_1}) {
    const ExportSummary summary = write_gguf(source, dir.file("m.gguf"), FloatType::kF16, use);
    std::map<std::string, int64_t> expected;
    for (std::size_t i = 0; i < plans.size(); ++i) {
      const Packed& packed = kPacked[i % std::size(kPacked)];
      ++expected[use == BlockUse::kExact ? packed.exact : packed.with_q4_1];
    }
    EXPECT_EQ(summary.matrices, expected);
    const SourceModel back = open_source(dir.file("m.gguf"));
    std::size_t next = 0;
    for (const TensorInfo& info : tensor_table(tiny.config)) {
      const auto ours = test::read_tensor(source, info), theirs = test::read_tensor(back, info);
      if (!may_be_quantized(info.role)) continue;
      const Packed& packed = kPacked[next++ % std::size(kPacked)];
      const std::string type = use == BlockUse::kExact ? packed.exact : packed.with_q4_1;
      if (type != "F16" && type != "Q4_1") {
        EXPECT_EQ(ours, theirs) << info.name << " " << type;
        continue;
      }
      // Half a unit in the last place of binary16, of the largest weight or offset.
      const float most = *std::max_element(ours.begin(), ours.end()) * 0x1p-11f * 2;
      for (std::size_t i = 0; i < ours.size(); ++i) ASSERT_NEAR(ours[i], theirs[i], most);
      EXPECT_LE(summary.largest_error, 0x1p-9f);
    }
    EXPECT_GT(summary.rounded, 0);
  }
}

TEST(ExportPacked, WhatNoBlockHoldsStaysFloat) {
  const test::TempDir dir;
  const SourceModel tiny = tiny_model({});
  // D = 64: no super-block; every third matrix is rotated.
  test::write_crumb(dir.file("m.crumb"), tiny, test::mixed_plans(tiny.config));
  const SourceModel source = open_source(dir.file("m.crumb"));
  const ExportSummary summary =
      write_gguf(source, dir.file("m.gguf"), FloatType::kF32, BlockUse::kExact);
  EXPECT_EQ(summary.rounded, 0);
  EXPECT_GT(summary.matrices.at("F32"), 0);
  EXPECT_EQ(summary.matrices.count("Q2_K"), 0u);
  expect_same(source, open_source(dir.file("m.gguf")), 0.0f);
}

TEST(ExportPacked, BandsShareATypeThatHoldsAll) {
  const test::TempDir dir;
  const SourceModel tiny = tiny_model({});
  test::write_crumb(dir.file("m.crumb"), tiny, test::banded_plans(tiny.config));
  const SourceModel source = open_source(dir.file("m.crumb"));
  write_gguf(source, dir.file("m.gguf"), FloatType::kF32, BlockUse::kExact);
  expect_same(source, open_source(dir.file("m.gguf")), 0.0f);
}

TEST(ExportPacked, ASubnormalScaleHasNoHalf) {
  MatrixView matrix;
  const std::vector<uint8_t> codes(static_cast<std::size_t>(kernels::strip_code_bytes(32, 2)), 0);
  std::vector<uint16_t> scales(32, 0x2400);
  matrix.bands.push_back({codes.data(), scales.data(), nullptr, 32, 32, 32, 2, Grid::kSeq});
  EXPECT_EQ(exact_block_type(matrix)->name, "Q4_0");
  scales[7] = 3;  // 3 * 2^-24
  EXPECT_EQ(exact_block_type(matrix), nullptr);
  matrix.bands[0].grid = Grid::kLsq;  // needs no half
  EXPECT_EQ(exact_block_type(matrix)->name, "Q4_0");
}

TEST(ExportRefuses, WhatTheFormatCannotSay) {
  const test::TempDir dir;
  TinyOptions options;
  options.block.rope_magnitude = 1.5f;
  EXPECT_THROW(write_gguf(tiny_model(options), dir.file("m.gguf")), FormatError);
  EXPECT_THROW(write_hugging_face(tiny_model(options), dir.dir().string()), FormatError);
  options.block = {};
  options.block.rope_factors = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_THROW(write_hugging_face(tiny_model(options), dir.dir().string()), FormatError);
  write_gguf(tiny_model(options), dir.file("m.gguf"));  // Llama's, in rope_freqs.weight
  EXPECT_EQ(open_source(dir.file("m.gguf")).config.block, options.block);
  options.block.qk_norm = true;  // no llama has one
  EXPECT_THROW(write_gguf(tiny_model(options), dir.file("n.gguf")), FormatError);
  EXPECT_FALSE(std::filesystem::exists(dir.file("n.gguf")));
}

// A folder with one defect each.
class HuggingFace : public testing::Test {
 protected:
  HuggingFace() { write_hugging_face(tiny_model({}), dir_.dir().string()); }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(dir_.file(name), std::ios::binary) << text;
  }
  std::string read(const std::string& name) {
    const auto bytes = test::read_bytes(dir_.file(name));
    return {bytes.begin(), bytes.end()};
  }
  void expect_error(const std::string& says) {
    try {
      open_source(dir_.dir().string());
      ADD_FAILURE() << "accepted: " << says;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(says));
    }
  }
  void replace(const std::string& from, const std::string& to) {
    std::string text = read("config.json");
    const auto at = text.find(from);
    ASSERT_NE(at, text.npos) << from;
    write("config.json", text.replace(at, from.size(), to));
  }
  test::TempDir dir_;
};

TEST_F(HuggingFace, ShardsAreOneModel) {
  const std::string whole = read("model.safetensors");
  std::filesystem::rename(dir_.file("model.safetensors"), dir_.file("a.safetensors"));
  write("model.safetensors.index.json", R"({"weight_map":{"x":"a.safetensors"}})");
  expect_same(tiny_model({}), open_source(dir_.dir().string()), 0.0f);
  write("model.safetensors.index.json",
        R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  write("b.safetensors", whole);
  expect_error("tensor twice");
  for (const char* name : {"../a.safetensors", "/etc/passwd", ".", "", "a/b"}) {
    write("model.safetensors.index.json", std::string(R"({"weight_map":{"x":")") + name + R"("}})");
    expect_error("weight_map");
  }
}

TEST_F(HuggingFace, NamesWhatIsMissing) {
  std::filesystem::remove(dir_.file("tokenizer.json"));
  expect_error("no tokenizer");
  std::filesystem::remove(dir_.file("model.safetensors"));
  expect_error("no weights");
  std::filesystem::remove(dir_.file("config.json"));
  expect_error("config.json");
}

TEST_F(HuggingFace, RefusesOtherArithmeticByName) {
  const std::string config = read("config.json");
  const std::pair<const char*, const char*> changes[] = {
      {"LlamaForCausalLM", "MambaForCausalLM"},
      {"\"silu\"", "\"relu\""},
      {"\"hidden_size\": 64", "\"hidden_size\": -1"},
      {"\"hidden_size\": 64", "\"hidden_size\": 32"},
      {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"},
      {"\"vocab_size\": 300", "\"vocab_size\": 100000000"},
      {"\"rope_theta\"",
       "\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 2},\"rope_theta\""},
      {"\"rope_theta\"", "\"attention_bias\": true, \"rope_theta\""},
      {"\"rope_theta\"", "\"partial_rotary_factor\": 0.5, \"rope_theta\""},
      {"\"rope_theta\"", "\"quantization_config\": {}, \"rope_theta\""},
  };
  for (const auto& [from, to] : changes) {
    write("config.json", config);
    replace(from, to);
    EXPECT_THROW(open_source(dir_.dir().string()), FormatError) << to;
  }
}

TEST_F(HuggingFace, EveryCutOfATextIsAnError) {
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    const std::string whole = read(name);
    for (std::size_t size = 0; size < whole.size() - 1; size += 1 + whole.size() / 200) {
      write(name, whole.substr(0, size));
      EXPECT_THROW(open_source(dir_.dir().string()), Error) << name << " " << size;
    }
    write(name, whole);
  }
  EXPECT_NO_THROW(open_source(dir_.dir().string()));
}

TEST(HuggingFaceConfig, LayerTypesMustFitOnePeriod) {
  const std::string config =
      R"({"architectures":["Gemma3ForCausalLM"],"hidden_size":64,"intermediate_size":96,)"
      R"("num_hidden_layers":4,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,)"
      R"("vocab_size":300,"max_position_embeddings":128,"sliding_window":16,)"
      R"("rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":1e6},)"
      R"("sliding_attention":{"rope_type":"default","rope_theta":5000.0}},)"
      R"("layer_types":["sliding_attention","full_attention","sliding_attention",)";
  const auto read = read_hugging_face_config(config + R"("full_attention"]})", "c").config;
  EXPECT_EQ(read.block.window_every, 2);
  EXPECT_EQ(read.rope_theta, 1e6f);
  EXPECT_EQ(read.block.rope_theta_local, 5000.0f);
  EXPECT_EQ(read.block.rope_factors, std::vector<float>(8, 8.0f));
  EXPECT_TRUE(read.tied_head);
  EXPECT_THROW(read_hugging_face_config(config + R"("sliding_attention"]})", "c"), FormatError);
  EXPECT_THROW(read_hugging_face_config(config + R"("other"]})", "c"), FormatError);
}

}  // namespace
}  // namespace crumb::models
