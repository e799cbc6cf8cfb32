#include <array>
#include <cstring>

#include "models/architectures.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/gguf.h"
#include "models/tiny_model.h"

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
  header.real(prefix + "attention.layer_norm_rms_epsilon", config.norm_eps);
  if (config.block.window > 0) {
    header.integer(prefix + "attention.sliding_window", config.block.window);
    header.integer(prefix + "attention.sliding_window_pattern", config.block.window_every);
    if (config.block.rope_theta_local != 0)
      header.real(prefix + "rope.freq_base_swa", config.block.rope_theta_local);
  }
}

void put_vocab(Header& header, const SourceModel& model) {
  const Vocab& vocab = model.vocab;
  header.text("tokenizer.ggml.model", vocab.model);
  header.text("tokenizer.ggml.pre", vocab.pre);
  header.array("tokenizer.ggml.tokens", GgufType::kString, vocab.tokens.size());
  for (const std::string& token : vocab.tokens) header.put_text(token);
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
  if (!model.chat_template.empty()) header.text("tokenizer.chat_template", model.chat_template);
}

std::size_t padding(std::size_t offset) { return (kAlignment - offset % kAlignment) % kAlignment; }

}  // namespace

void write_gguf(const SourceModel& model, const std::string& path) {
  const Architecture* architecture = find_architecture(model.config.architecture);
  if (architecture == nullptr || architecture->fused)
    throw Error(ExitCode::kInternal, "no GGUF form of " + model.config.architecture);
  const auto table = tensor_table(model.config);
  Header values, tensors;
  put_config(values, model);
  put_vocab(values, model);
  uint64_t offset = 0;
  for (const TensorInfo& info : table) {
    tensors.put_text(gguf_place(info, *architecture, model.config).name);
    tensors.put(static_cast<uint32_t>(info.shape.size()));
    for (auto dim = info.shape.rbegin(); dim != info.shape.rend(); ++dim)
      tensors.put(static_cast<uint64_t>(*dim));
    tensors.put(uint32_t{0});  // F32
    tensors.put(offset);
    offset += static_cast<uint64_t>(weights_of(info)) * sizeof(float);
    offset += padding(offset);
  }
  Header start;
  start.put(std::array<char, 4>{'G', 'G', 'U', 'F'});
  start.put(uint32_t{3});
  start.put<uint64_t>(table.size());
  start.put(values.values());
  FileWriter file(path);
  for (const Header* part : {&start, &values, &tensors}) file.write(part->bytes());
  file.write(std::string(padding(file.offset()), '\0'));
  for (const TensorInfo& info : table) {
    std::vector<float> ours(static_cast<std::size_t>(weights_of(info)));
    model.read(info.name, ours);
    std::vector<float> stored(ours.size());
    const int64_t head_dim =
        architecture->half_split && is_rotary(info) ? model.config.head_dim : 0;
    const std::size_t row = info.shape.size() == 2 ? static_cast<std::size_t>(info.shape[1]) : 1;
    for (std::size_t n = 0; n < ours.size() / row; ++n) {
      const auto to = static_cast<std::size_t>(half_split_row(static_cast<int64_t>(n), head_dim));
      std::memcpy(&stored[to * row], &ours[n * row], row * sizeof(float));
    }
    file.write({reinterpret_cast<const uint8_t*>(stored.data()), stored.size() * sizeof(float)});
    file.write(std::string(padding(stored.size() * sizeof(float)), '\0'));
  }
  file.commit();
}

}  // namespace crumb::models
