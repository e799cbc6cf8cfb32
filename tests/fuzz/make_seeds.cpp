// Writes the inputs that fuzzing starts from, one folder a target: make_fuzz_seeds FOLDER.
// They are as small as lawful files get: every run of a target reads all of one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>

#include "kernels/layout.h"
#include "models/checkpoint.h"
#include "models/export.h"
#include "models/file_writer.h"
#include "models/gguf_blocks.h"
#include "models/tiny_model.h"
#include "models/tokenizer_files.h"

namespace crumb::models {
namespace {

namespace fs = std::filesystem;

Vocab small_vocab(const std::string& model) {
  Vocab vocab;
  vocab.model = model;
  vocab.pre = model == "gpt2" ? "qwen2" : "default";
  vocab.tokens = {"<unk>", "<s>", "a", "b", "ab"};
  vocab.types = {TokenType::kUnknown, TokenType::kControl, TokenType::kNormal, TokenType::kNormal,
                 TokenType::kNormal};
  if (model == "gpt2") {
    vocab.types[0] = TokenType::kUserDefined;
    vocab.merges = {{2, 3, 4}};
  } else {
    vocab.scores = {0, 0, -1, -2, -3};
    vocab.unk = 0;
    vocab.add_space_prefix = true;
  }
  vocab.bos = 1;
  return vocab;
}

// A model of a few hundred weights with a vocabulary of five tokens.
SourceModel small_model(const std::string& architecture, const std::string& vocab, int64_t dim) {
  TinyOptions options;
  options.architecture = architecture;
  options.layers = 1;
  options.dim = dim;
  options.ffn = 2 * dim;
  options.heads = 2;
  options.kv_heads = 1;
  options.head_dim = 4;
  options.qkv_bias = architecture == "qwen2";
  options.block.qk_norm = architecture == "qwen3" || architecture == "gemma3";
  if (architecture == "gemma3") {
    options.block.post_norms = true;
    options.block.activation = Activation::kGeluTanh;
    options.block.embedding_scale = std::sqrt(static_cast<float>(dim));
    options.block.window = 8;
    options.block.rope_theta_local = 10000;
    options.block.rope_factors.assign(2, 8.0f);
  }
  SourceModel model = tiny_model(options);
  model.vocab = small_vocab(vocab);
  model.config.vocab = std::ssize(model.vocab.tokens);
  model.chat_template = "{{ messages }}";
  return model;
}

void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
}

// A file of one tensor and no model: for the decoding of one block type.
std::string one_tensor(const BlockType& type) {
  std::string out = "GGUF";
  put(out, 3, 4);
  put(out, 1, 8);
  put(out, 0, 8);
  put(out, 1, 8);
  out += "t";
  put(out, 1, 4);
  put(out, static_cast<uint64_t>(type.values), 8);
  put(out, type.id, 4);
  put(out, 0, 8);
  out.resize((out.size() + 31) / 32 * 32);
  for (int64_t i = 0; i < type.bytes; ++i) out += static_cast<char>(i * 37 + 11);
  return out;
}

PackedData packed(const MatrixPlan& plan, int64_t N, int64_t K) {
  const auto scales = static_cast<std::size_t>(
      kernels::strip_count(N) * kernels::group_count(K, plan.group) * kernels::kStripRows);
  PackedData data;
  data.rows = N;
  data.cols = K;
  data.group = plan.group;
  data.bits = plan.bits;
  data.bands = plan.bands;
  data.grid = plan.grid;
  data.rotation = plan.rotation;
  data.codes.assign(static_cast<std::size_t>(code_bytes(bands_of(plan, N), K)), 0x1b);
  data.scales.assign(scales, 0x2400);
  const auto padded = static_cast<std::size_t>(N % kernels::kStripRows);
  if (padded != 0)
    for (std::size_t i = scales - kernels::kStripRows; i < scales; ++i)
      if (i % kernels::kStripRows >= padded) data.scales[i] = 0;
  if (plan.grid == kernels::Grid::kAsym) data.zeros.assign(scales, 1);
  return data;
}

// `kind` walks through widths, grids, rotation and bands.
void write_checkpoint(const SourceModel& model, int kind, const std::string& path) {
  constexpr int kBits[] = {2, 3, 4, 8, 32};
  std::vector<MatrixPlan> plans;
  for (const TensorInfo& info : tensor_table(model.config)) {
    if (!may_be_quantized(info.role)) continue;
    MatrixPlan plan;
    plan.name = info.name;
    plan.bits = kBits[kind % 5];
    if (plan.bits != 32) {
      plan.group = info.shape[1];
      plan.grid = static_cast<kernels::Grid>(kind % 3);
      if (kind == 2 && info.shape[1] % 32 == 0) plan.rotation = {32, 7};
      if (kind == 3 && info.shape[0] > 32) {
        plan.bits = 0;
        plan.bands = {{1, 2}, {kernels::strip_count(info.shape[0]) - 1, 4}};
      }
    }
    plans.push_back(plan);
  }
  CheckpointWriter writer(path, header_of(model, "{}"), plans);
  std::size_t next = 0;
  for (const TensorInfo& info : tensor_table(model.config)) {
    const bool matrix = may_be_quantized(info.role);
    if (matrix && plans[next].bits != 32) {
      writer.add(info.name, packed(plans[next], info.shape[0], info.shape[1]));
    } else {
      std::vector<float> values(static_cast<std::size_t>(weights_of(info)));
      model.read(info.name, values);
      writer.add(info.name, values);
    }
    if (matrix) ++next;
  }
  writer.commit();
}

// GGUF files, checkpoints, and what a Hugging Face folder consists of.
void write_models(const fs::path& folder) {
  for (const BlockType& type : block_types())
    write_file((folder / "gguf" / type.name).string(), one_tensor(type));
  int kind = 0;
  for (const char* architecture : {"llama", "qwen2", "qwen3", "gemma3"}) {
    for (const char* vocab : {"gpt2", "llama"}) {
      const SourceModel model = small_model(architecture, vocab, 4);
      const std::string name = std::string(architecture) + "-" + vocab;
      write_gguf(model, (folder / "gguf" / name).string(), static_cast<FloatType>(kind % 2));
      const int64_t wide = kind == 2 || kind == 3 ? 32 : 4;  // enough to rotate, and for two bands
      write_checkpoint(small_model(architecture, vocab, wide), kind,
                       (folder / "crumb" / name).string());
      const fs::path parts = folder / name;
      fs::create_directory(parts);
      write_hugging_face(model, parts.string(), static_cast<FloatType>(kind % 2));
      fs::rename(parts / "config.json", folder / "config_json" / name);
      fs::rename(parts / "model.safetensors", folder / "safetensors" / name);
      const bool json = fs::exists(parts / "tokenizer.json");
      fs::rename(parts / (json ? "tokenizer.json" : "tokenizer.model"),
                 folder / (json ? "tokenizer_json" : "tokenizer_model") / name);
      fs::remove_all(parts);
      ++kind;
    }
  }
  // The middle one of three layers is left, with half of its FFN.
  SourceModel pruned = small_model("llama", "gpt2", 4);
  pruned.config.whole_layers = 3;
  pruned.config.pruned = {{1, 4, 1}};
  pruned.read = [](std::string_view, std::span<float> out) { std::ranges::fill(out, 0.5f); };
  write_checkpoint(pruned, 1, (folder / "crumb" / "pruned").string());
}

void write_texts(const fs::path& folder) {
  for (const char* model : {"t5", "spm-word", "spm-char"})
    write_file((folder / "tokenizer_model" / model).string(),
               write_sentencepiece_model(small_vocab(model)));
  write_file(
      (folder / "tokenizer_json" / "merges").string(),
      R"({"model":{"type":"BPE","byte_fallback":true,"unk_token":"<unk>",)"
      R"("vocab":{"<unk>":0,"a":1,"b":2,"ab":3},"merges":[["a","b"]]},)"
      R"("normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)"
      R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]},)"
      R"("added_tokens":[{"id":4,"content":"<s>","special":true}],)"
      R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}]}})");
  using namespace std::string_view_literals;
  constexpr std::string_view kTexts[] = {
      "\x00\x01Hello, the world's 123\n\n  \xc3\xa9"sv, "\x01\x02 a\xff\xf0\x9f\x98"sv,
      "\x02\x03\t'LL 1234 \r\n x"sv, "\x03\x04<|im_end|>\xe1\x84\x80\xe1\x85\xa1 e\xcc\x81"sv};
  for (std::size_t i = 0; i < std::size(kTexts); ++i)
    write_file((folder / "text" / std::to_string(i)).string(), kTexts[i]);
}

}  // namespace
}  // namespace crumb::models

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_fuzz_seeds FOLDER\n");
    return 2;
  }
  try {
    for (const char* target : {"chat_template", "config_json", "crumb", "gguf", "safetensors",
                               "text", "tokenizer_json", "tokenizer_model"})
      std::filesystem::create_directories(std::filesystem::path(argv[1]) / target);
    crumb::models::write_models(argv[1]);
    crumb::models::write_texts(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "make_fuzz_seeds: %s\n", error.what());
    return 1;
  }
  return 0;
}
