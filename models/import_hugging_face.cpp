// A folder as the transformers package writes it: config.json, *.safetensors, tokenizer files.
#include <algorithm>
#include <filesystem>
#include <set>

#include "kernels/float16.h"
#include "models/architectures.h"
#include "models/byte_reader.h"
#include "models/errors.h"
#include "models/hugging_face_config.h"
#include "models/hugging_face_vision.h"
#include "models/import.h"
#include "models/json_text.h"
#include "models/safetensors_set.h"
#include "models/text.h"
#include "models/tokenizer_files.h"
#include "models/vision_source.h"

namespace crumb::models {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int64_t kMaxTextBytes = 128 << 20;

struct SourceArray {
  const StoredArray* array = nullptr;
  int64_t half_split_heads = 0;  // Dh if the rows must be permuted, else 0
  int64_t first_row = 0;         // of a fused matrix
  float added = 0;               // to every value
};

struct Import {
  SafetensorsSet weights;
  VisionArrays vision;                                      // of a folder with a tower
  std::map<std::string, SourceArray, std::less<>> tensors;  // by our name
  std::string folder;

  explicit Import(const std::string& path) : weights(path), folder(path) {}
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

// The object in an optional file of the folder; empty if it is not there.
json optional_object(const std::string& folder, const char* name) {
  const std::string path = (fs::path(folder) / name).string();
  if (!fs::exists(path)) return json::object();
  return parse_json_object(read_text(path, kMaxTextBytes), {path, name}, kMaxTextBytes);
}

std::string text_or_content(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string())
    return value["content"].get<std::string>();
  return {};
}

// Prefixes of a folder's tensors, of the spelling that it uses; empty for a text model's.
using Prefixes = Composite::Prefixes;
Prefixes find_prefixes(const Import& import, const Composite& composite) {
  for (const Prefixes& spelling : composite.spellings)
    if (import.weights.tensors().contains(std::string(spelling.text) + "embed_tokens.weight"))
      return spelling;
  return composite.spellings[0];
}

// "model.norm.weight" and "lm_head.weight" as the folder calls them.
std::string prefixed(const std::string& name, const Prefixes& prefixes) {
  constexpr std::string_view kModel = "model.", kHead = "lm_head";
  if (prefixes.text.empty()) return name;
  if (name.starts_with(kModel)) return std::string(prefixes.text) + name.substr(kModel.size());
  return std::string(prefixes.head) + name.substr(kHead.size());
}

// Tensors of the folder that make no part of the model.
bool left_out(const std::string& name, const ModelConfig& config, const Prefixes& prefixes) {
  // A copy of a tied head, and RoPE's frequencies as older versions stored them.
  if (config.tied_head && name == prefixed("lm_head.weight", prefixes)) return true;
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  if (!config.vision || !name.starts_with(prefixes.tower)) return false;
  const std::string_view own = std::string_view(name).substr(prefixes.tower.size());
  const VisionTower& tower = *find_tower(config.vision->architecture);
  for (const std::string_view prefix : tower.ignored)
    if (own.starts_with(prefix)) return true;
  // The last norm, and layers behind the one that is read.
  if (!config.vision->final_norm && own.starts_with("post_layernorm.")) return true;
  if (!own.starts_with(tower.layer_prefix)) return false;
  const std::string number(own.substr(tower.layer_prefix.size(), 4));
  return std::atoll(number.c_str()) >= config.vision->layers;
}

void match_tensors(Import& import, const ModelConfig& config, const Architecture& architecture,
                   const Prefixes& prefixes) {
  std::set<std::string, std::less<>> used = import.vision.used;
  for (const TensorInfo& info : tensor_table(config)) {
    ForeignPlace place = hugging_face_place(info, architecture, config);
    place.name = prefixed(place.name, prefixes);
    const auto found = import.weights.tensors().find(place.name);
    std::vector<int64_t> shape = info.shape;
    const int64_t fused = fused_rows(info, architecture, config);
    if (fused != 0) shape[0] = fused;
    if (found == import.weights.tensors().end())
      throw FormatError("missing tensor (" + import.folder + ": expected '" + place.name + "' " +
                        shape_text(shape) + ", found nothing)");
    const StoredArray& array = found->second;
    if (array.shape != shape)
      throw FormatError("invalid shape of tensor '" + place.name + "' (" + import.folder +
                        ": expected " + shape_text(shape) + ", found " + shape_text(array.shape) +
                        ")");
    if (!is_float(array))
      throw FormatError("invalid type of tensor '" + place.name + "' (" + import.folder +
                        ": expected F32, F16 or BF16, found " + std::string(array.dtype->name) +
                        ")");
    const bool shifted = architecture.norm_plus_one && info.role == TensorRole::kNorm;
    import.tensors.emplace(info.name, SourceArray{&array, is_rotary(info) ? config.head_dim : 0,
                                                  place.first_row, shifted ? 1.0f : 0.0f});
    used.insert(place.name);
  }
  for (const auto& [name, array] : import.weights.tensors()) {
    if (!left_out(name, config, prefixes) && !used.contains(name))
      throw FormatError("unexpected tensor (" + import.folder + ": expected the tensors of a " +
                        config.architecture + " model, found " + printable(name) + ")");
  }
}

void read_tensor(const Import& import, std::string_view name, std::span<float> out) {
  if (const auto seen = import.vision.arrays.find(name); seen != import.vision.arrays.end())
    return read_array(*seen->second, name, import.folder, out);
  const auto found = import.tensors.find(name);
  if (found == import.tensors.end())
    throw FormatError("unknown tensor (" + import.folder +
                      ": expected a tensor of the model, found " + printable(name) + ")");
  const SourceArray& source = found->second;
  const auto K =
      source.array->shape.size() == 2 ? static_cast<std::size_t>(source.array->shape[1]) : 1;
  const auto N = static_cast<int64_t>(out.size() / K);
  const uint64_t rows =
      source.array->data.size() / (K * static_cast<std::size_t>(source.array->dtype->bytes));
  if (static_cast<uint64_t>(source.first_row + N) > rows || out.size() % K != 0)
    throw Error(ExitCode::kInternal,
                "read of tensor " + std::string(name) + " into a span of another size");
  for (int64_t n = 0; n < N; ++n) {
    const auto values = out.subspan(static_cast<std::size_t>(n) * K, K);
    read_row(*source.array, source.first_row + half_split_row(n, source.half_split_heads), values);
    for (float& value : values) value += source.added;
    require_finite(values, name, n, import.folder);
  }
}

// added_tokens_decoder of tokenizer_config.json: {"ID": {"content", "special", ..}}.
void add_tokens(const json& config, const std::string& file, Vocab& vocab) {
  const auto added = config.find("added_tokens_decoder");
  if (added == config.end() || !added->is_object()) return;
  for (const auto& [key, token] : added->items()) {
    const std::string text = text_or_content(token);
    const auto digits = key.find_first_not_of("0123456789") == key.npos && key.size() < 8;
    const std::size_t id = digits && !key.empty() ? std::stoul(key) : SIZE_MAX;
    if (id > vocab.tokens.size() || text.empty())
      throw FormatError("invalid added token (" + file + ": expected an id of at most " +
                        std::to_string(vocab.tokens.size()) + " and a text, found " +
                        printable(key) + ")");
    if (id == vocab.tokens.size()) {
      vocab.tokens.emplace_back();
      vocab.types.push_back(TokenType::kNormal);
      if (!vocab.scores.empty()) vocab.scores.push_back(0);
    }
    vocab.tokens[id] = text;
    if (static_cast<int32_t>(id) == vocab.unk) continue;
    const bool special = token.contains("special") && token["special"] == true;
    vocab.types[id] = special ? TokenType::kControl : TokenType::kUserDefined;
  }
}

// The vocabulary may be shorter than the embedding: the rest is never produced by text.
void pad_vocab(Vocab& vocab, int64_t V, const std::string& folder) {
  if (std::ssize(vocab.tokens) > V)
    throw FormatError("too many tokens (" + folder + ": expected at most vocab_size = " +
                      std::to_string(V) + ", found " + std::to_string(vocab.tokens.size()) + ")");
  while (std::ssize(vocab.tokens) < V) {
    vocab.tokens.push_back("[PAD" + std::to_string(vocab.tokens.size()) + "]");
    vocab.types.push_back(TokenType::kUnused);
    if (!vocab.scores.empty()) vocab.scores.push_back(0);
  }
}

int32_t find_token(const Vocab& vocab, const std::string& text, int32_t otherwise) {
  if (text.empty()) return otherwise;
  const auto found = std::find(vocab.tokens.begin(), vocab.tokens.end(), text);
  return found == vocab.tokens.end() ? otherwise
                                     : static_cast<int32_t>(found - vocab.tokens.begin());
}

Vocab read_vocab(const std::string& folder, const json& tokenizer_config, int64_t V) {
  const auto path_of = [&](const char* name) { return (fs::path(folder) / name).string(); };
  Vocab vocab;
  if (fs::exists(path_of("tokenizer.model"))) {
    const MappedFile file(path_of("tokenizer.model"));
    vocab = read_sentencepiece_model(file.bytes(), file.path());
    add_tokens(tokenizer_config, path_of("tokenizer_config.json"), vocab);
    vocab.add_bos = vocab.bos >= 0;
  } else if (fs::exists(path_of("tokenizer.json"))) {
    vocab = read_tokenizer_json(read_text(path_of("tokenizer.json"), kMaxTextBytes),
                                path_of("tokenizer.json"));
  } else {
    throw FormatError("no tokenizer (" + folder +
                      ": expected tokenizer.json or tokenizer.model, found neither)");
  }
  const struct {
    const char* field;
    int32_t Vocab::*member;
  } special[] = {
      {"bos_token", &Vocab::bos}, {"eos_token", &Vocab::eos}, {"pad_token", &Vocab::pad}};
  for (const auto& token : special)
    if (tokenizer_config.contains(token.field))
      vocab.*token.member =
          find_token(vocab, text_or_content(tokenizer_config[token.field]), vocab.*token.member);
  if (const auto add = tokenizer_config.find("add_bos_token");
      add != tokenizer_config.end() && add->is_boolean())
    vocab.add_bos = add->get<bool>() && vocab.bos >= 0;
  // Which tokens are further ones is only known now.
  vocab.stop.clear();
  add_known_stops(vocab);
  pad_vocab(vocab, V, folder);
  return vocab;
}

void add_stops(Vocab& vocab, const std::vector<int64_t>& ids) {
  for (const int64_t id : ids) {
    const auto stop = static_cast<int32_t>(id);
    if (id >= std::ssize(vocab.tokens) || stop == vocab.eos) continue;
    if (vocab.eos < 0)
      vocab.eos = stop;
    else if (std::find(vocab.stop.begin(), vocab.stop.end(), stop) == vocab.stop.end())
      vocab.stop.push_back(stop);
  }
}

GenerationDefaults read_generation(const json& file, Vocab& vocab) {
  GenerationDefaults out;
  const struct {
    const char* field;
    float GenerationDefaults::*member;
  } reals[] = {{"temperature", &GenerationDefaults::temperature},
               {"top_p", &GenerationDefaults::top_p},
               {"min_p", &GenerationDefaults::min_p},
               {"repetition_penalty", &GenerationDefaults::repeat_penalty}};
  for (const auto& real : reals)
    if (file.contains(real.field) && file[real.field].is_number()) {
      const auto value = file[real.field].get<double>();
      if (value >= 0 && value <= 1000) out.*real.member = static_cast<float>(value);
    }
  if (file.contains("top_k") && file["top_k"].is_number_unsigned())
    out.top_k = std::min<int64_t>(file["top_k"].get<int64_t>(), kMaxVocab);
  std::vector<int64_t> eos;
  if (const auto ids = file.find("eos_token_id"); ids != file.end())
    for (const json& id : ids->is_array() ? *ids : json::array({*ids}))
      if (id.is_number_unsigned()) eos.push_back(static_cast<int64_t>(id.get<uint32_t>()));
  add_stops(vocab, eos);
  return out;
}

// The template: a file of its own, or in tokenizer_config.json, alone or the one called "default".
std::string read_template(const std::string& folder, const json& tokenizer_config) {
  const std::string path = (fs::path(folder) / "chat_template.jinja").string();
  if (fs::exists(path)) return read_text(path, 4 << 20);
  const auto found = tokenizer_config.find("chat_template");
  if (found == tokenizer_config.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return {};
  for (const json& entry : *found)
    if (entry.is_object() && entry.contains("name") && entry["name"] == "default" &&
        entry.contains("template"))
      return text_or_content(entry["template"]);
  return {};
}

std::string describe(const SafetensorsSet& weights) {
  std::map<std::string_view, uint64_t> bytes;
  for (const auto& [name, array] : weights.tensors()) bytes[array.dtype->name] += array.data.size();
  const auto largest = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return std::string(largest->first);
}

}  // namespace

namespace {

// The tower of a folder that holds decoder and tower: its tensors, and how wide the projector is.
void match_tower(const Composite& composite, const Prefixes& prefixes, Import& import,
                 ModelConfig& config) {
  const std::string base(prefixes.projector);
  VisionPlaces places{find_tower(config.vision->architecture), std::string(prefixes.tower), {}};
  places.projector[0] = base + std::string(composite.projector_1);
  if (!composite.projector_2.empty()) {
    places.projector[1] = base + std::string(composite.projector_2);
    const auto first = import.weights.tensors().find(places.projector[0] + ".weight");
    if (first != import.weights.tensors().end() && first->second.shape.size() == 2)
      config.vision->hidden = first->second.shape[0];
    if (config.vision->hidden == 0)
      throw FormatError("missing tensor (" + import.folder + ": expected '" + places.projector[0] +
                        ".weight', found nothing)");
    validate(config, import.folder);
  }
  import.vision = match_vision(import.weights, config, places, import.folder);
}

// A template that writes no image gets its rows before the text.
void fit_to_template(const Composite& composite, const std::string& text, VisionConfig& vision) {
  if (text.find(composite.image_text) != std::string::npos) return;
  vision.image_text.clear();
  if (!composite.after_mark.empty()) vision.after = composite.after_mark;
}

}  // namespace

SourceModel import_hugging_face(const std::string& folder) {
  const std::string config_path = (fs::path(folder) / "config.json").string();
  if (!fs::exists(config_path))
    throw FormatError("not a model folder (" + folder +
                      ": expected config.json, found no such file)");
  const std::string text = read_text(config_path, kMaxTextBytes);
  const auto composite = read_composite_config(text, folder);
  HuggingFaceConfig read =
      read_hugging_face_config(composite ? composite->text : text, config_path);
  const auto import = std::make_shared<Import>(folder);
  SourceModel model;
  model.config = std::move(read.config);
  model.config.name = fs::path(folder).lexically_normal().filename().string();
  if (!valid_utf8(model.config.name)) model.config.name.clear();
  const Prefixes prefixes = composite ? find_prefixes(*import, *composite->composite) : Prefixes{};
  if (!model.config.tied_head &&
      !import->weights.tensors().contains(prefixed("lm_head.weight", prefixes)))
    model.config.tied_head = true;
  if (composite) {
    model.config.vision = composite->vision;
    match_tower(*composite->composite, prefixes, *import, model.config);
  }
  match_tensors(*import, model.config, *read.architecture, prefixes);
  const json tokenizer_config = optional_object(folder, "tokenizer_config.json");
  model.vocab = read_vocab(folder, tokenizer_config, model.config.vocab);
  add_stops(model.vocab, read.eos);
  model.generation =
      read_generation(optional_object(folder, "generation_config.json"), model.vocab);
  validate(model.vocab, folder);
  model.chat_template = read_template(folder, tokenizer_config);
  if (composite) fit_to_template(*composite->composite, model.chat_template, *model.config.vision);
  model.description = describe(import->weights);
  model.file_bytes = import->weights.file_bytes();
  model.hash = import->weights.hash();
  model.read = [data = import.get()](std::string_view name, std::span<float> out) {
    read_tensor(*data, name, out);
  };
  model.storage = import;
  return model;
}

}  // namespace crumb::models
