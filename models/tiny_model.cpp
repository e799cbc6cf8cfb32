#include "models/tiny_model.h"

#include <cmath>
#include <map>

#include "models/errors.h"
#include "models/text.h"
#include "models/vision_towers.h"

namespace crumb::models {
namespace {

constexpr int64_t kControlTokens = 3, kBytes = 256;
constexpr std::string_view kTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ "
    "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' "
    "}}{% endif %}";

// Value `index` of stream `stream`: SplitMix64's finalizer, as in FORMAT.md, mapped to [-1, 1).
float uniform(uint64_t seed, uint64_t stream, uint64_t index) {
  uint64_t z =
      seed * 0xd1342543de82ef95u + stream * 0x9e3779b97f4a7c15u + (index + 1) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<float>(static_cast<int32_t>(z >> 40) - (1 << 23)) * 0x1p-23f;
}

std::string utf8(uint32_t point) {
  if (point < 0x80) return {static_cast<char>(point)};
  return {static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 63))};
}

// The byte-level alphabet of GPT-2: printable Latin-1 bytes stand for themselves, the others for
// U+0100 and up in order.
std::vector<std::string> byte_alphabet() {
  std::vector<std::string> alphabet;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool itself =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    alphabet.push_back(utf8(itself ? byte : next++));
  }
  return alphabet;
}

// Pairs worth merging, made of bytes and earlier merges, most frequent first.
std::vector<std::pair<std::string, std::string>> merge_pairs(const std::string& space) {
  std::vector<std::pair<std::string, std::string>> pairs = {
      {space, "t"},       {space, "a"},        {"h", "e"}, {"i", "n"},   {"r", "e"},
      {"o", "n"},         {space + "t", "he"}, {"e", "r"}, {space, "s"}, {"a", "t"},
      {space, "w"},       {space, "o"},        {"e", "n"}, {space, "c"}, {"i", "t"},
      {"i", "s"},         {"a", "n"},          {"o", "r"}, {"e", "s"},   {space + "a", "n"},
      {space + "an", "d"}};
  // Any further pairs: two letters each, in alphabetical order.
  for (char left = 'a'; left <= 'z'; ++left)
    for (char right = 'a'; right <= 'z'; ++right)
      pairs.emplace_back(std::string(1, left), std::string(1, right));
  return pairs;
}

Vocab tiny_vocab(int64_t V) {
  Vocab vocab;
  vocab.model = "gpt2";
  vocab.pre = "smollm";
  vocab.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  const auto alphabet = byte_alphabet();
  vocab.tokens.insert(vocab.tokens.end(), alphabet.begin(), alphabet.end());
  std::map<std::string, int32_t> ids;
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id)
    ids.emplace(vocab.tokens[id], static_cast<int32_t>(id));
  for (const auto& [left, right] : merge_pairs(alphabet[' '])) {
    const auto id = static_cast<int32_t>(vocab.tokens.size());
    if (id == V) break;
    if (!ids.emplace(left + right, id).second) continue;
    vocab.tokens.push_back(left + right);
    vocab.merges.push_back({ids.at(left), ids.at(right), id});
  }
  // A larger vocabulary is filled with tokens that no text produces.
  while (static_cast<int64_t>(vocab.tokens.size()) < V)
    vocab.tokens.push_back("<|unused" + std::to_string(vocab.tokens.size()) + "|>");
  vocab.types.assign(vocab.tokens.size(), TokenType::kNormal);
  for (std::size_t id = 0; id < vocab.types.size(); ++id) {
    if (id < kControlTokens) vocab.types[id] = TokenType::kControl;
    if (vocab.tokens[id].starts_with("<|unused")) vocab.types[id] = TokenType::kUnused;
  }
  vocab.bos = 1;
  vocab.eos = 2;
  vocab.unk = 0;
  vocab.pad = 2;
  vocab.stop = {0};
  return vocab;
}

void fill(const TensorInfo& info, uint64_t seed, uint64_t stream, std::span<float> out) {
  // A uniform value in [-1, 1) has variance 1/3.
  const auto linear = static_cast<float>(std::sqrt(3.0 / static_cast<double>(info.shape.back())));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const float value = uniform(seed, stream, i);
    switch (info.role) {
      case TensorRole::kNorm:
        out[i] = 1.0f + 0.25f * value;
        break;
      case TensorRole::kBias:
        out[i] = 0.25f * value;
        break;
      default:
        out[i] = linear * value;
        break;
    }
  }
}

}  // namespace

VisionConfig tiny_vision(std::string_view kind) {
  const VisionTower* tower = find_tower(kind);
  if (tower == nullptr)
    throw Error(ExitCode::kInternal, "tiny model: no tower called " + std::string(kind));
  VisionConfig config;
  config.architecture = tower->name;
  config.class_token = tower->class_token;
  config.patch_bias = tower->patch_bias;
  config.pre_norm = tower->pre_norm;
  config.final_norm = tower->final_norm;
  config.layer_scale = tower->layer_scale;
  config.norm_eps = tower->norm_eps;
  config.activation = tower->activation == "gelu"         ? VisionActivation::kGeluErf
                      : tower->activation == "quick_gelu" ? VisionActivation::kQuickGelu
                                                          : VisionActivation::kGeluTanh;
  config.layers = 2;
  config.dim = 48;
  config.ffn = 96;
  config.heads = 4;
  config.patch = 4;
  config.image = config.resize = 24;
  config.unshuffle = 2;
  config.hidden = 80;
  config.after = "\n";
  return config;
}

SourceModel tiny_model(const TinyOptions& options) {
  if (options.vocab < kControlTokens + kBytes)
    throw Error(ExitCode::kInternal,
                "tiny model: vocab must be at least " + std::to_string(kControlTokens + kBytes));
  SourceModel model;
  model.config = {options.architecture,
                  "tiny",
                  options.layers,
                  options.dim,
                  options.ffn,
                  options.heads,
                  options.kv_heads,
                  options.head_dim,
                  options.vocab,
                  options.context,
                  10000.0f,
                  1e-5f,
                  options.tied_head,
                  options.qkv_bias,
                  options.block,
                  {},
                  0,
                  options.vision};
  validate(model.config, "tiny model");
  model.vocab = tiny_vocab(options.vocab);
  validate(model.vocab, "tiny model");
  model.chat_template = kTemplate;
  model.license = "apache-2.0";
  model.description = "F32";
  model.hash = "tiny-" + std::to_string(options.seed);
  const auto table = std::make_shared<const std::vector<TensorInfo>>(whole_table(model.config));
  model.read = [table, seed = options.seed](std::string_view name, std::span<float> out) {
    for (std::size_t i = 0; i < table->size(); ++i)
      if ((*table)[i].name == name) return fill((*table)[i], seed, i + 1, out);
    throw FormatError("unknown tensor (tiny model: expected a tensor of the model, found " +
                      printable(name) + ")");
  };
  model.storage = table;
  return model;
}

}  // namespace crumb::models
