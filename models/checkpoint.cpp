#include "models/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "models/byte_reader.h"
#include "models/checkpoint_checks.h"
#include "models/checkpoint_layout.h"
#include "models/errors.h"
#include "models/json_text.h"
#include "models/text.h"

namespace crumb::models {

struct Checkpoint::State {
  MappedFile mapping;
  Safetensors container;
  ModelConfig config;
  Vocab vocab;
  GenerationDefaults generation;
  std::map<std::string, MatrixView> matrices;
  std::map<std::string, std::span<const float>> vectors;
  std::map<std::string, std::string> checksums;
};

namespace {

// Features of crumb/1 files that a reader may be asked to know.
constexpr std::string_view kKnownFeatures[] = {"rotation", "bands", "block", "pruned", "vision"};
constexpr std::size_t kMaxChecksumRecord = 8u << 20;

[[noreturn]] void fail(const std::string& file, const std::string& what,
                       const std::string& expected, const std::string& found,
                       std::string hint = {}) {
  throw FormatError(
      "invalid " + what + " (" + file + ": expected " + expected + ", found " + found + ")",
      std::move(hint));
}

const std::string& text_of(const Safetensors& container, const std::string& key,
                           const std::string& file) {
  const auto found = container.metadata.find(key);
  if (found == container.metadata.end()) fail(file, "metadata", "key '" + key + "'", "nothing");
  return found->second;
}

void check_format(const Safetensors& container, const std::string& file) {
  const auto format = container.metadata.find("format");
  if (format == container.metadata.end() || !format->second.starts_with("crumb/"))
    throw FormatError("not a .crumb checkpoint (" + file +
                          ": expected format crumb/1, found another safetensors file)",
                      "import a GGUF file instead");
  if (format->second != kFormatName)
    fail(file, "format", std::string(kFormatName), printable(format->second),
         "a newer version of crumb may read it");
}

// The list of features, comma-separated, empty for none; each must be known.
std::set<std::string_view> required_features(const Safetensors& container,
                                             const std::string& file) {
  std::set<std::string_view> features;
  std::string_view rest = text_of(container, "required", file);
  while (!rest.empty()) {
    const auto comma = std::min(rest.find(','), rest.size());
    const std::string_view feature = rest.substr(0, comma);
    if (std::find(std::begin(kKnownFeatures), std::end(kKnownFeatures), feature) ==
        std::end(kKnownFeatures))
      fail(file, "required feature", "features this version knows", printable(feature),
           "a newer version of crumb may read it");
    features.insert(feature);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return features;
}

// The bytes of stored tensors by name, typed, without padding. Built after match_layout.
class Views {
 public:
  Views(const Safetensors& container, const std::vector<StoredTensor>& stored) {
    for (std::size_t i = 0; i < stored.size(); ++i)
      views_.emplace(stored[i].name,
                     container.data.subspan(container.tensors[i].begin,
                                            static_cast<std::size_t>(stored[i].bytes)));
  }
  // Empty if the file has no such tensor. Alignment holds: every tensor starts at a multiple of 64.
  template <class T>
  std::span<const T> get(const std::string& name) const {
    const auto found = views_.find(name);
    if (found == views_.end()) return {};
    return {reinterpret_cast<const T*>(found->second.data()), found->second.size() / sizeof(T)};
  }

 private:
  std::map<std::string, std::span<const uint8_t>> views_;
};

void load_vocab(const Views& views, const VocabSizes& sizes, Vocab& vocab,
                const std::string& file) {
  const auto text = views.get<char>("tokenizer.text");
  const auto offsets = views.get<int32_t>("tokenizer.offsets");
  vocab.tokens.reserve(static_cast<std::size_t>(sizes.tokens));
  if (offsets.front() != 0 || offsets.back() != static_cast<int32_t>(text.size()))
    fail(file, "tokenizer.offsets", "0.." + std::to_string(text.size()),
         std::to_string(offsets.front()) + ".." + std::to_string(offsets.back()));
  for (std::size_t id = 0; id + 1 < offsets.size(); ++id) {
    const int64_t begin = offsets[id], end = offsets[id + 1];
    if (begin < 0 || end < begin || end > static_cast<int64_t>(text.size()))
      fail(file, "tokenizer.offsets", "ascending offsets",
           std::to_string(end) + " after token " + std::to_string(id));
    vocab.tokens.emplace_back(text.data() + begin, static_cast<std::size_t>(end - begin));
  }
  for (const uint8_t type : views.get<uint8_t>("tokenizer.types"))
    vocab.types.push_back(static_cast<TokenType>(type));
  const auto scores = views.get<float>("tokenizer.scores");
  vocab.scores.assign(scores.begin(), scores.end());
  const auto merges = views.get<int32_t>("tokenizer.merges");
  vocab.merges.resize(merges.size() / 3);
  if (!merges.empty()) std::memcpy(vocab.merges.data(), merges.data(), merges.size_bytes());
  const auto charsmap = views.get<char>("tokenizer.charsmap");
  vocab.charsmap.assign(charsmap.begin(), charsmap.end());
  validate(vocab, file);
}

MatrixView matrix_view(const Views& views, const MatrixPlan& plan, int64_t N, int64_t K,
                       const std::string& file) {
  MatrixView view;
  view.rotation = plan.rotation;
  if (plan.bits == kFloatBits) {
    view.f32 = views.get<float>(plan.name);
    return view;
  }
  const auto scales = views.get<uint16_t>(plan.name + ".scales");
  const auto zeros = views.get<uint8_t>(plan.name + ".zeros");
  check_scales(scales, N, kernels::group_count(K, plan.group), plan.name, file);
  const kernels::PackedMatrix whole = {views.get<uint8_t>(plan.name + ".codes").data(),
                                       scales.data(),
                                       zeros.empty() ? nullptr : zeros.data(),
                                       N,
                                       K,
                                       plan.group,
                                       plan.bits,
                                       plan.grid};
  view.bands = cut_bands(whole, bands_of(plan, N));
  for (const kernels::PackedMatrix& band : view.bands) check_zeros(band, plan.name, file);
  return view;
}

std::map<std::string, std::string> load_checksums(const Safetensors& container,
                                                  const std::string& file) {
  const JsonPlace place{file, "checksums"};
  const auto json =
      parse_json_object(text_of(container, "checksums", file), place, kMaxChecksumRecord);
  std::map<std::string, std::string> checksums;
  for (const SafetensorsEntry& entry : container.tensors)
    checksums.emplace(entry.name, json_string(json, entry.name.c_str(), place));
  if (json.size() != checksums.size())
    json_fail(place, "entries", std::to_string(checksums.size()), std::to_string(json.size()));
  return checksums;
}

}  // namespace

std::vector<float> rotation_signs(const Rotation& rotation, int64_t K) {
  // SplitMix64 (Steele, Lea, Flood 2014) as a counter-based generator: its k-th output for this
  // seed.
  std::vector<float> signs(static_cast<std::size_t>(K), 1.0f);
  uint64_t counter = rotation.seed;
  for (float& sign : signs) {
    counter += 0x9e3779b97f4a7c15u;
    uint64_t z = counter;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    if (z >> 63 != 0) sign = -1.0f;
  }
  return signs;
}

Checkpoint Checkpoint::open(const std::string& path) { return open(MappedFile(path)); }

Checkpoint Checkpoint::open(MappedFile file) {
  const auto state = std::make_shared<State>();
  state->mapping = std::move(file);
  const std::string& path = state->mapping.path();
  state->container = parse_safetensors(state->mapping.bytes(), path, kMaxCrumbHeader);
  const Safetensors& container = state->container;
  check_format(container, path);
  const auto features = required_features(container, path);
  state->config = config_from_json(text_of(container, "config", path), path);
  const ModelConfig& config = state->config;
  if (config.block != BlockOptions{} && !features.contains("block"))
    fail(path, "required features", "'block', which the config uses", "it missing");
  if (!config.pruned.empty() && !features.contains("pruned"))
    fail(path, "required features", "'pruned', which the config uses", "it missing");
  if (config.vision && !features.contains("vision"))
    fail(path, "required features", "'vision', which the config uses", "it missing");
  const VocabSizes sizes =
      tokenizer_from_json(text_of(container, "tokenizer", path), state->vocab, path);
  if (sizes.tokens != config.vocab)
    fail(path, "number of tokens", std::to_string(config.vocab), std::to_string(sizes.tokens));
  state->generation = generation_from_json(text_of(container, "generation", path), path);
  for (const char* key : {"chat_template", "license", "recipe"}) text_of(container, key, path);
  const auto plans = matrices_from_json(text_of(container, "matrices", path), config, path);
  for (const auto& [name, plan] : plans) {
    const auto need = [&, &matrix = name](const char* feature) {
      if (!features.contains(feature))
        fail(path, "required features",
             "'" + std::string(feature) + "', which " + printable(matrix) + " uses", "it missing");
    };
    if (plan.rotation.hadamard != 0) need("rotation");
    if (!plan.bands.empty()) need("bands");
  }
  const auto stored = stored_tensors(config, sizes, plans);
  match_layout(container, stored, path);
  const Views views(container, stored);
  load_vocab(views, sizes, state->vocab, path);
  for (const TensorInfo& info : whole_table(config)) {
    if (may_be_quantized(info.role)) {
      state->matrices.emplace(
          info.name, matrix_view(views, plans.at(info.name), info.shape[0], info.shape[1], path));
    } else {
      const auto values = views.get<float>(info.name);
      check_finite(values, info.name, path);
      state->vectors.emplace(info.name, values);
    }
  }
  state->checksums = load_checksums(container, path);
  // Last, so that damage that can be named is named.
  if (header_checksum(container.header) != text_of(container, "header_checksum", path))
    fail(path, "header checksum", header_checksum(container.header),
         printable(text_of(container, "header_checksum", path)),
         "the file is damaged: copy or download it again");
  Checkpoint checkpoint;
  checkpoint.state_ = state;
  return checkpoint;
}

const ModelConfig& Checkpoint::config() const { return state_->config; }
const Vocab& Checkpoint::vocab() const { return state_->vocab; }
const std::string& Checkpoint::chat_template() const {
  return state_->container.metadata.at("chat_template");
}
const GenerationDefaults& Checkpoint::generation() const { return state_->generation; }
const std::map<std::string, std::string>& Checkpoint::metadata() const {
  return state_->container.metadata;
}
const MappedFile& Checkpoint::file() const { return state_->mapping; }
MatrixView Checkpoint::matrix(const std::string& name) const { return state_->matrices.at(name); }
std::span<const float> Checkpoint::vector(const std::string& name) const {
  return state_->vectors.at(name);
}

std::vector<std::string> Checkpoint::verify(
    const std::function<void(int64_t, int64_t)>& progress) const {
  std::vector<std::string> different;
  int64_t done = 0;
  const auto total = static_cast<int64_t>(state_->container.data.size());
  for (const SafetensorsEntry& entry : state_->container.tensors) {
    const auto data = state_->container.data.subspan(entry.begin, entry.end - entry.begin);
    if (tensor_checksum(entry.name, data) != state_->checksums.at(entry.name))
      different.push_back(entry.name);
    done += static_cast<int64_t>(data.size());
    if (progress) progress(done, total);
  }
  return different;
}

}  // namespace crumb::models
