#include <algorithm>
#include <filesystem>

#include "models/architectures.h"
#include "models/errors.h"
#include "models/export.h"
#include "models/file_writer.h"
#include "models/hugging_face_config.h"
#include "models/json.h"
#include "models/json_text.h"
#include "models/tokenizer_files.h"

namespace crumb::models {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

// model_type where it is not the name of the architecture.
std::string model_type(const Architecture& architecture) {
  return architecture.name == "gemma3" ? "gemma3_text" : std::string(architecture.name);
}

Json config_json(const SourceModel& model, const Architecture& row, FloatType type,
                 const std::string& folder) {
  const ModelConfig& config = model.config;
  const BlockOptions& block = config.block;
  const bool silu = block.activation == Activation::kSilu;
  Json json;
  json["architectures"] = {row.class_name};
  json["model_type"] = model_type(row);
  json["hidden_size"] = config.dim;
  json["intermediate_size"] = config.ffn;
  json["num_hidden_layers"] = config.layers;
  json["num_attention_heads"] = config.heads;
  json["num_key_value_heads"] = config.kv_heads;
  json["head_dim"] = config.head_dim;
  json["vocab_size"] = config.vocab;
  json["max_position_embeddings"] = config.context;
  json["rms_norm_eps"] = static_cast<double>(config.norm_eps);
  json["rope_theta"] = static_cast<double>(config.rope_theta);
  json["tie_word_embeddings"] = config.tied_head;
  json[silu ? "hidden_act" : "hidden_activation"] = silu ? "silu" : "gelu_pytorch_tanh";
  json["torch_dtype"] = type == FloatType::kF32 ? "float32" : "float16";
  if (row.scaled_embedding)
    json["query_pre_attn_scalar"] = block.attention_scale == 0
                                        ? static_cast<double>(config.head_dim)
                                        : 1.0 / (static_cast<double>(block.attention_scale) *
                                                 static_cast<double>(block.attention_scale));
  if (block.window > 0) {
    json["sliding_window"] = block.window;
    json["layer_types"] = Json::array();
    for (int64_t layer = 0; layer < config.layers; ++layer)
      json["layer_types"].push_back(window_of(config, layer) == 0 ? "full_attention"
                                                                  : "sliding_attention");
    if (row.name == "qwen2" || row.name == "qwen3") json["use_sliding_window"] = true;
    if (block.rope_theta_local != 0)
      json["rope_local_base_freq"] = static_cast<double>(block.rope_theta_local);
  }
  const float factor = common_rope_factor(config);
  if (factor == 0) cannot_say(folder, "RoPE factors that differ");
  if (factor > 1)
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", static_cast<double>(factor)}};
  if (model.vocab.bos >= 0) json["bos_token_id"] = model.vocab.bos;
  if (model.vocab.eos >= 0) json["eos_token_id"] = model.vocab.eos;
  return json;
}

Json byte_level(bool splits) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", splits}};
}

// tokenizer.json of a byte-level vocabulary.
Json tokenizer_json(const Vocab& vocab, const std::string& folder) {
  Json json;
  json["version"] = "1.0";
  json["added_tokens"] = Json::array();
  Json ids = Json::object();
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id) {
    const bool control = vocab.types[id] == TokenType::kControl;
    if (control || vocab.types[id] == TokenType::kUserDefined)
      json["added_tokens"].push_back({{"id", id},
                                      {"content", vocab.tokens[id]},
                                      {"single_word", false},
                                      {"lstrip", false},
                                      {"rstrip", false},
                                      {"normalized", false},
                                      {"special", control}});
    ids[vocab.tokens[id]] = id;
  }
  const KnownSplit* split = find_split(vocab.pre);
  if (split == nullptr) cannot_say(folder, "the pre-tokenizer " + vocab.pre);
  json["normalizer"] = split->nfc ? Json{{"type", "NFC"}} : Json();
  Json first;
  if (split->digits) first = {{"type", "Digits"}, {"individual_digits", true}};
  if (!split->regex.empty())
    first = {{"type", "Split"},
             {"pattern", {{"Regex", split->regex}}},
             {"behavior", "Isolated"},
             {"invert", false}};
  Json both = Json::array({first, byte_level(split->regex.empty())});
  json["pre_tokenizer"] =
      first.is_null() ? byte_level(true) : Json{{"type", "Sequence"}, {"pretokenizers", both}};
  json["post_processor"] = Json();
  json["decoder"] = byte_level(true);
  Json merges = Json::array();
  for (const auto& merge : vocab.merges)
    merges.push_back({vocab.tokens[static_cast<std::size_t>(merge[0])],
                      vocab.tokens[static_cast<std::size_t>(merge[1])]});
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", vocab.pre == "llama-bpe"},
                   {"vocab", std::move(ids)},
                   {"merges", std::move(merges)}};
  return json;
}

Json tokenizer_config_json(const Vocab& vocab) {
  Json json;
  const struct {
    const char* name;
    int32_t id;
  } special[] = {{"bos_token", vocab.bos}, {"eos_token", vocab.eos}, {"pad_token", vocab.pad}};
  for (const auto& token : special)
    if (token.id >= 0) json[token.name] = vocab.tokens[static_cast<std::size_t>(token.id)];
  json["add_bos_token"] = vocab.add_bos;
  if (!is_sentencepiece(vocab)) {
    json["tokenizer_class"] = "PreTrainedTokenizerFast";
    return json;
  }
  // What tokenizer.model cannot say of types is said here.
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id)
    if (vocab.types[id] == TokenType::kControl || vocab.types[id] == TokenType::kUserDefined)
      json["added_tokens_decoder"][std::to_string(id)] = {
          {"content", vocab.tokens[id]}, {"special", vocab.types[id] == TokenType::kControl}};
  return json;
}

Json generation_json(const SourceModel& model) {
  Json json;
  const GenerationDefaults& g = model.generation;
  const auto real = [&](const char* name, float value) {
    if (value >= 0) json[name] = static_cast<double>(value);
  };
  real("temperature", g.temperature);
  real("top_p", g.top_p);
  real("min_p", g.min_p);
  real("repetition_penalty", g.repeat_penalty);
  if (g.top_k >= 0) json["top_k"] = g.top_k;
  Json eos = Json::array();
  for (const int32_t id : {model.vocab.eos, model.vocab.eot})
    if (id >= 0 && std::find(eos.begin(), eos.end(), id) == eos.end()) eos.push_back(id);
  for (const int32_t id : model.vocab.stop) eos.push_back(id);
  if (!eos.empty()) json["eos_token_id"] = std::move(eos);
  return json;
}

struct Entry {
  TensorInfo info;
  std::string name;
  FloatType type;
  uint64_t bytes() const {
    return static_cast<uint64_t>(weights_of(info)) * (type == FloatType::kF32 ? 4u : 2u);
  }
};

void write_weights(const SourceModel& model, const Architecture& row, FloatType type,
                   const std::string& path) {
  std::vector<Entry> entries;
  Json header;
  header["__metadata__"] = {{"format", "pt"}};
  uint64_t offset = 0;
  for (const TensorInfo& info : tensor_table(model.config)) {
    const FloatType own = info.shape.size() == 2 ? type : FloatType::kF32;
    entries.push_back({info, hugging_face_place(info, row, model.config).name, own});
    const uint64_t end = offset + entries.back().bytes();
    header[entries.back().name] = {{"dtype", own == FloatType::kF32 ? "F32" : "F16"},
                                   {"shape", info.shape},
                                   {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json_dump(header);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t size = text.size();
  FileWriter file(path);
  file.write(std::string_view(reinterpret_cast<const char*>(&size), sizeof(size)));
  file.write(text);
  for (const Entry& entry : entries) {
    const bool shifted = row.norm_plus_one && entry.info.role == TensorRole::kNorm;
    file.write(tensor_bytes(model, entry.info, is_rotary(entry.info) ? model.config.head_dim : 0,
                            shifted ? -1.0f : 0.0f, entry.type, path));
  }
  file.commit();
}

}  // namespace

void write_hugging_face(const SourceModel& given, const std::string& folder, FloatType type) {
  const SourceModel model = as_whole(given, folder);
  require_blind(model.config, "a Hugging Face folder");
  const Architecture* row = find_architecture(model.config.architecture);
  if (row == nullptr || row->fused)
    cannot_say(folder, "the architecture " + model.config.architecture);
  const auto path = [&](const char* name) { return (fs::path(folder) / name).string(); };
  const std::string config = config_json(model, *row, type, folder).dump(2);
  // Whatever the file cannot say shows when it is read again.
  ModelConfig back = read_hugging_face_config(config, path("config.json")).config;
  back.name = model.config.name;
  if (to_json(back) != to_json(model.config))
    cannot_say(folder, "a " + model.config.architecture + " that config.json has no words for");
  std::string tokenizer = is_sentencepiece(model.vocab)
                              ? write_sentencepiece_model(model.vocab)
                              : json_dump(tokenizer_json(model.vocab, folder));
  write_file(path("config.json"), config);
  write_file(path(is_sentencepiece(model.vocab) ? "tokenizer.model" : "tokenizer.json"), tokenizer);
  write_file(path("tokenizer_config.json"), json_dump(tokenizer_config_json(model.vocab)));
  if (!model.chat_template.empty()) write_file(path("chat_template.jinja"), model.chat_template);
  if (const Json generation = generation_json(model); !generation.is_null())
    write_file(path("generation_config.json"), generation.dump(2));
  write_weights(model, *row, type, path("model.safetensors"));
}

}  // namespace crumb::models
