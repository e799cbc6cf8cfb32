#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include "kernels/float16.h"
#include "models/architectures.h"
#include "models/checkpoint.h"
#include "models/errors.h"
#include "models/export.h"
#include "models/export_blocks.h"
#include "models/file_writer.h"
#include "models/gguf.h"

namespace crumb::models {
namespace {

constexpr uint64_t kAlignment = 32;

// The header under construction.
class Header {
 public:
  template <class T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void put_text(std::string_view text) {
    put<uint64_t>(text.size());
    bytes_.append(text);
  }
  void key(std::string_view name, GgufType type) {
    put_text(name);
    put(static_cast<uint32_t>(type));
    ++values_;
  }
  void integer(std::string_view name, int64_t value) {
    key(name, GgufType::kU32);
    put(static_cast<uint32_t>(value));
  }
  void real(std::string_view name, float value) {
    key(name, GgufType::kF32);
    put(value);
  }
  void boolean(std::string_view name, bool value) {
    key(name, GgufType::kBool);
    put<uint8_t>(value ? 1 : 0);
  }
  void text(std::string_view name, std::string_view value) {
    key(name, GgufType::kString);
    put_text(value);
  }
  void array(std::string_view name, GgufType type, std::size_t count) {
    key(name, GgufType::kArray);
    put(static_cast<uint32_t>(type));
    put<uint64_t>(count);
  }
  uint64_t values() const { return values_; }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
  uint64_t values_ = 0;
};

void put_config(Header& header, const SourceModel& model) {
  const ModelConfig& config = model.config;
  const std::string prefix = config.architecture + ".";
  header.text("general.architecture", config.architecture);
  header.text("general.name", config.name);
  if (!model.license.empty()) header.text("general.license", model.license);
  header.integer(prefix + "block_count", config.layers);
  header.integer(prefix + "context_length", config.context);
  header.integer(prefix + "embedding_length", config.dim);
  header.integer(prefix + "feed_forward_length", config.ffn);
  header.integer(prefix + "attention.head_count", config.heads);
  header.integer(prefix + "attention.head_count_kv", config.kv_heads);
  header.integer(prefix + "attention.key_length", config.head_dim);
  header.integer(prefix + "attention.value_length", config.head_dim);
  header.integer(prefix + "rope.dimension_count", config.head_dim);
  header.integer(prefix + "vocab_size", config.vocab);
  header.real(prefix + "rope.freq_base", config.rope_theta);
  if (const float factor = common_rope_factor(config); factor > 1.0f) {
    header.text(prefix + "rope.scaling.type", "linear");
    header.real(prefix + "rope.scaling.factor", factor);
  }
  header.real(prefix + "attention.layer_norm_rms_epsilon", config.norm_eps);
  if (config.block.window > 0) {
    header.integer(prefix + "attention.sliding_window", config.block.window);
    header.integer(prefix + "attention.sliding_window_pattern", config.block.window_every);
    if (config.block.rope_theta_local != 0)
      header.real(prefix + "rope.freq_base_swa", config.block.rope_theta_local);
  }
}

// Converters write the spaces of added tokens plainly.
std::string with_plain_spaces(std::string text) {
  constexpr std::string_view kMark = "\u2581";
  for (auto at = text.find(kMark); at != std::string::npos; at = text.find(kMark, at))
    text.replace(at, kMark.size(), " ");
  return text;
}

void put_vocab(Header& header, const SourceModel& model) {
  const Vocab& vocab = model.vocab;
  header.text("tokenizer.ggml.model", vocab.model);
  header.text("tokenizer.ggml.pre", vocab.pre);
  header.array("tokenizer.ggml.tokens", GgufType::kString, vocab.tokens.size());
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id)
    header.put_text(is_sentencepiece(vocab) && vocab.types[id] == TokenType::kUserDefined
                        ? with_plain_spaces(vocab.tokens[id])
                        : vocab.tokens[id]);
  header.array("tokenizer.ggml.token_type", GgufType::kI32, vocab.types.size());
  for (const TokenType type : vocab.types) header.put(static_cast<int32_t>(type));
  if (!vocab.scores.empty()) {
    header.array("tokenizer.ggml.scores", GgufType::kF32, vocab.scores.size());
    for (const float score : vocab.scores) header.put(score);
  }
  if (vocab.model == "gpt2") {
    header.array("tokenizer.ggml.merges", GgufType::kString, vocab.merges.size());
    for (const auto& merge : vocab.merges)
      header.put_text(vocab.tokens[static_cast<std::size_t>(merge[0])] + " " +
                      vocab.tokens[static_cast<std::size_t>(merge[1])]);
  }
  const struct {
    const char* name;
    int32_t id;
  } special[] = {{"tokenizer.ggml.bos_token_id", vocab.bos},
                 {"tokenizer.ggml.eos_token_id", vocab.eos},
                 {"tokenizer.ggml.eot_token_id", vocab.eot},
                 {"tokenizer.ggml.unknown_token_id", vocab.unk},
                 {"tokenizer.ggml.padding_token_id", vocab.pad}};
  for (const auto& token : special)
    if (token.id >= 0) header.integer(token.name, token.id);
  header.boolean("tokenizer.ggml.add_bos_token", vocab.add_bos);
  header.boolean("tokenizer.ggml.add_space_prefix", vocab.add_space_prefix);
  if (is_sentencepiece(vocab)) {
    header.boolean("tokenizer.ggml.remove_extra_whitespaces", vocab.remove_extra_spaces);
    if (!vocab.charsmap.empty()) {
      header.array("tokenizer.ggml.precompiled_charsmap", GgufType::kU8, vocab.charsmap.size());
      for (const char byte : vocab.charsmap) header.put(byte);
    }
  }
  if (!model.chat_template.empty()) header.text("tokenizer.chat_template", model.chat_template);
}

std::size_t padding(std::size_t offset) { return (kAlignment - offset % kAlignment) % kAlignment; }

// What GGUF's keys have no words for.
void check_sayable(const SourceModel& model, const Architecture* architecture,
                   const std::string& path) {
  const ModelConfig& config = model.config;
  if (architecture == nullptr || architecture->fused)
    cannot_say(path, "the architecture " + config.architecture);
  const BlockOptions& block = config.block;
  if (block.rope_magnitude != 1.0f) cannot_say(path, "a magnitude of RoPE");
  if (block.attention_scale != 0.0f) cannot_say(path, "a scale of attention's own");
  if (common_rope_factor(config) == 0.0f && architecture->name != "llama")
    cannot_say(path, "factors of each RoPE frequency");
  if (is_sentencepiece(model.vocab) && (!model.vocab.escape_spaces || model.vocab.space_suffix))
    cannot_say(path, "SentencePiece spaces that are not marked, or at the end of words");
  ModelConfig plain = config;
  plain.block = {};
  apply(*architecture, plain);
  plain.block.window = block.window;
  plain.block.window_every = block.window_every;
  plain.block.rope_theta_local = block.rope_theta_local;
  plain.block.rope_factors = block.rope_factors;
  if (plain.qkv_bias != config.qkv_bias || plain.block != block)
    cannot_say(path, "a " + config.architecture + " with other blocks than that family's");
}

// One tensor of the file.
struct Entry {
  std::string name;
  std::vector<int64_t> shape;
  const BlockType* type = nullptr;
  uint64_t bytes() const {
    uint64_t n = 1;
    for (const int64_t dim : shape) n *= static_cast<uint64_t>(dim);
    return n / static_cast<uint64_t>(type->values) * static_cast<uint64_t>(type->bytes);
  }
};

void put_entry(Header& header, const Entry& entry, uint64_t& offset) {
  header.put_text(entry.name);
  header.put(static_cast<uint32_t>(entry.shape.size()));
  for (auto dim = entry.shape.rbegin(); dim != entry.shape.rend(); ++dim)
    header.put(static_cast<uint64_t>(*dim));
  header.put(entry.type->id);
  header.put(offset);
  offset += entry.bytes();
  offset += padding(offset);
}

constexpr uint32_t kF32Id = 0, kF16Id = 1, kQ4_1Id = 3;

// How a tensor will be written: a packed matrix as the blocks that hold it, all else as floats.
const BlockType* type_of(const SourceModel& model, const TensorInfo& info, FloatType floats,
                         BlockUse blocks) {
  if (info.shape.size() == 1) return find_block_type(kF32Id);
  const BlockType* const plain = find_block_type(floats == FloatType::kF32 ? kF32Id : kF16Id);
  if (blocks == BlockUse::kNone || !model.packed) return plain;
  const MatrixView matrix = model.packed(info.name);
  const BlockType* const exact = exact_block_type(matrix);
  const BlockType* const q4_1 = find_block_type(kQ4_1Id);
  const auto size = [](const BlockType& type) {  // bytes of 256 weights
    return 256 / type.values * type.bytes;
  };
  if (blocks == BlockUse::kQ4_1 && fits_q4_1(matrix) &&
      (exact == nullptr || size(*q4_1) < size(*exact)))
    return q4_1;
  return exact != nullptr ? exact : plain;
}

// A packed matrix as blocks, its rows in the file's order.
std::string block_bytes(const SourceModel& model, const TensorInfo& info, int64_t half_split_heads,
                        const BlockType& type) {
  const MatrixView matrix = model.packed(info.name);
  const int64_t N = info.shape[0], row = info.shape[1] / type.values * type.bytes;
  std::string bytes(static_cast<std::size_t>(N * row), '\0');
  for (int64_t n = 0; n < N; ++n)
    write_block_row(
        matrix, n, type,
        {reinterpret_cast<uint8_t*>(bytes.data()) + half_split_row(n, half_split_heads) * row,
         static_cast<std::size_t>(row)});
  return bytes;
}

// Counts a matrix that was written as `bytes`, and how far its weights are from the model's.
void count(const SourceModel& model, const TensorInfo& info, int64_t half_split_heads,
           const BlockType& type, const std::string& bytes, ExportSummary& summary) {
  ++summary.matrices[std::string(type.name)];
  if (type.id == kF32Id) return;
  const auto N = info.shape[0], K = info.shape[1];
  std::vector<float> ours(static_cast<std::size_t>(N * K)), row(static_cast<std::size_t>(K));
  model.read(info.name, ours);
  float largest = 0;
  for (int64_t n = 0; n < N; ++n) {
    const int64_t blocks = K / type.values;
    type.dequantize(reinterpret_cast<const uint8_t*>(bytes.data()) +
                        half_split_row(n, half_split_heads) * blocks * type.bytes,
                    blocks, row.data());
    for (int64_t k = 0; k < K; ++k)
      largest = std::max(largest, std::fabs(row[static_cast<std::size_t>(k)] -
                                            ours[static_cast<std::size_t>(n * K + k)]));
  }
  if (largest > 0) ++summary.rounded;
  summary.largest_error = std::max(summary.largest_error, largest);
}

// llama.cpp's number for "mostly this type"; only shown by it.
int64_t file_type(const std::vector<Entry>& entries) {
  const std::map<std::string_view, int64_t> numbers = {
      {"F32", 0}, {"F16", 1}, {"Q4_0", 2}, {"Q4_1", 3}, {"Q8_0", 7}, {"Q5_0", 8}, {"Q2_K", 10}};
  std::map<std::string_view, uint64_t> bytes;
  for (const Entry& entry : entries) bytes[entry.type->name] += entry.bytes();
  return numbers.at(std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) {
                      return a.second < b.second;
                    })->first);
}

}  // namespace

void cannot_say(const std::string& file, const std::string& what) {
  throw FormatError("cannot export the model (" + file +
                    ": expected what the format can say, found " + what + ")");
}

SourceModel as_whole(const SourceModel& model, const std::string& file) {
  SourceModel whole = model;
  const auto& sizes = model.config.pruned;
  if (sizes.empty()) return whole;
  const bool even = std::all_of(sizes.begin(), sizes.end(), [&](const LayerSize& size) {
    return size.ffn == sizes.front().ffn && size.kv_heads == sizes.front().kv_heads;
  });
  if (!even || model.config.block.window > 0)
    cannot_say(file, "a pruned model's layers, each of its own size");
  whole.config = layer_config(model.config, 0);
  return whole;
}

float common_rope_factor(const ModelConfig& config) {
  const auto& factors = config.block.rope_factors;
  if (factors.empty()) return 1.0f;
  for (const float factor : factors)
    if (factor != factors[0] || factor < 1.0f) return 0.0f;
  return factors[0];
}

std::string tensor_bytes(const SourceModel& model, const TensorInfo& info, int64_t half_split_heads,
                         float added, FloatType type, const std::string& file) {
  std::vector<float> ours(static_cast<std::size_t>(weights_of(info)));
  model.read(info.name, ours);
  const std::size_t row = info.shape.size() == 2 ? static_cast<std::size_t>(info.shape[1]) : 1;
  const std::size_t size = type == FloatType::kF32 ? sizeof(float) : sizeof(uint16_t);
  std::string bytes(ours.size() * size, '\0');
  for (std::size_t n = 0; n < ours.size() / row; ++n) {
    const auto to =
        static_cast<std::size_t>(half_split_row(static_cast<int64_t>(n), half_split_heads));
    for (std::size_t k = 0; k < row; ++k) {
      const float value = ours[n * row + k] + added;
      char* place = &bytes[(to * row + k) * size];
      if (type == FloatType::kF32) {
        std::memcpy(place, &value, size);
        continue;
      }
      const uint16_t half = kernels::f32_to_f16(value);
      if (!std::isfinite(kernels::f16_to_f32(half)))
        throw FormatError("weight too large for F16 (" + file + ": expected at most 65504 in " +
                              info.name + ", found " + std::to_string(value) + ")",
                          "export with --type f32");
      std::memcpy(place, &half, size);
    }
  }
  return bytes;
}

ExportSummary write_gguf(const SourceModel& given, const std::string& path, FloatType type,
                         BlockUse blocks) {
  const SourceModel model = as_whole(given, path);
  const Architecture* architecture = find_architecture(model.config.architecture);
  require_blind(model.config, "a GGUF file");
  check_sayable(model, architecture, path);
  const auto table = tensor_table(model.config);
  const bool factors = common_rope_factor(model.config) == 0.0f;
  std::vector<Entry> entries;
  if (factors)
    entries.push_back({"rope_freqs.weight", {model.config.head_dim / 2}, find_block_type(kF32Id)});
  for (const TensorInfo& info : table)
    entries.push_back({gguf_place(info, *architecture, model.config).name, info.shape,
                       type_of(model, info, type, blocks)});
  Header values, tensors;
  put_config(values, model);
  values.integer("general.file_type", file_type(entries));
  values.integer("general.quantization_version", 2);
  put_vocab(values, model);
  uint64_t offset = 0;
  for (const Entry& entry : entries) put_entry(tensors, entry, offset);
  Header start;
  start.put(std::array<char, 4>{'G', 'G', 'U', 'F'});
  start.put(uint32_t{3});
  start.put<uint64_t>(entries.size());
  start.put(values.values());
  FileWriter file(path);
  for (const Header* part : {&start, &values, &tensors}) file.write(part->bytes());
  file.write(std::string(padding(file.offset()), '\0'));
  const auto write = [&](std::string_view bytes) {
    file.write(bytes);
    file.write(std::string(padding(bytes.size()), '\0'));
  };
  if (factors) {
    const auto& f = model.config.block.rope_factors;
    write({reinterpret_cast<const char*>(f.data()), f.size() * sizeof(float)});
  }
  ExportSummary summary;
  auto entry = entries.begin() + (factors ? 1 : 0);
  for (const TensorInfo& info : table) {
    const BlockType& stored = *(entry++)->type;
    const int64_t head_dim =
        architecture->half_split && is_rotary(info) ? model.config.head_dim : 0;
    const FloatType floats = stored.id == kF32Id ? FloatType::kF32 : FloatType::kF16;
    const std::string bytes = stored.values == 1
                                  ? tensor_bytes(model, info, head_dim, 0.0f, floats, path)
                                  : block_bytes(model, info, head_dim, stored);
    if (info.shape.size() == 2) count(model, info, head_dim, stored, bytes, summary);
    write(bytes);
  }
  file.commit();
  return summary;
}

}  // namespace crumb::models
