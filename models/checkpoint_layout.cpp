#include "models/checkpoint_layout.h"

#include <xxhash.h>

#include <memory>
#include <numeric>

#include "models/errors.h"
#include "models/json_text.h"
#include "models/text.h"

namespace crumb::models {
namespace {

using kernels::Grid;

constexpr std::size_t kMaxRecordBytes = 4u << 20;
constexpr int64_t kMinHadamard = 32, kMaxHadamard = 512;
constexpr std::string_view kGridNames[] = {"seq", "lsq", "asym"};

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// The natural shape if its bytes are a multiple of 64, else one dimension padded up to that.
StoredTensor stored(std::string name, std::string_view dtype, std::vector<int64_t> shape,
                    std::string table_name = {}) {
  StoredTensor tensor{std::move(name), dtype, std::move(shape), 0, 0, std::move(table_name)};
  const int64_t unit = find_dtype(dtype)->bytes;
  tensor.bytes = std::accumulate(tensor.stored_shape.begin(), tensor.stored_shape.end(), unit,
                                 std::multiplies<>());
  tensor.stored_bytes = round_up(tensor.bytes, kTensorAlign);
  if (tensor.stored_bytes != tensor.bytes) tensor.stored_shape = {tensor.stored_bytes / unit};
  return tensor;
}

void add_matrix(std::vector<StoredTensor>& out, const MatrixPlan& plan, int64_t N, int64_t K) {
  if (plan.bits == kFloatBits) {
    out.push_back(stored(plan.name, "F32", {N, K}, plan.name));
    return;
  }
  const int64_t strips = kernels::strip_count(N), groups = kernels::group_count(K, plan.group);
  std::vector<int64_t> codes = {strips, kernels::strip_code_bytes(K, plan.bits)};
  if (!plan.bands.empty()) codes = {code_bytes(plan.bands, K)};
  out.push_back(stored(plan.name + ".codes", "U8", std::move(codes), plan.name));
  out.push_back(
      stored(plan.name + ".scales", "F16", {strips, groups, kernels::kStripRows}, plan.name));
  if (plan.grid == Grid::kAsym)
    out.push_back(
        stored(plan.name + ".zeros", "U8", {strips, groups, kernels::kStripRows}, plan.name));
}

std::string hex64(uint64_t value) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text(kChecksumDigits, '0');
  for (std::size_t i = 0; i < kChecksumDigits; ++i) text[i] = kHex[value >> (60 - 4 * i) & 15];
  return text;
}

uint64_t parse_hex64(const std::string& text, const char* field, const JsonPlace& place) {
  uint64_t value = 0;
  bool good = text.size() == kChecksumDigits;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    good = good && (digit || (c >= 'a' && c <= 'f'));
    value = value << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  if (!good) json_fail(place, field, "16 digits of 0-9a-f", printable(text));
  return value;
}

// [[strips, bits], ...]
std::vector<Band> bands_from_json(const nlohmann::json& list, int64_t N, const JsonPlace& place) {
  if (!list.is_array()) json_fail(place, "bands", "an array", list.type_name());
  if (list.size() < 2) json_fail(place, "bands", "two or more", std::to_string(list.size()));
  std::vector<Band> bands;
  for (const auto& pair : list) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_unsigned() ||
        !pair[1].is_number_unsigned())
      json_fail(place, "bands", "pairs of strips and bits", "another value");
    const auto strips = pair[0].get<uint64_t>(), bits = pair[1].get<uint64_t>();
    const auto most = static_cast<uint64_t>(kernels::strip_count(N));
    if (strips < 1 || strips > most || bits > 8)
      json_fail(place, "bands", "1.." + std::to_string(most) + " strips of 2, 3, 4 or 8 bits",
                std::to_string(strips) + " of " + std::to_string(bits));
    bands.push_back({static_cast<int64_t>(strips), static_cast<int>(bits)});
  }
  return bands;
}

// Two or more lawful widths, no two neighbours alike, all strips covered: one way to say one thing.
void validate_bands(const MatrixPlan& plan, int64_t N, const JsonPlace& place) {
  int64_t strips = 0;
  for (std::size_t i = 0; i < plan.bands.size(); ++i) {
    const Band& band = plan.bands[i];
    if (!kernels::valid_bits(band.bits))
      json_fail(place, "bands", "2, 3, 4 or 8 bits", std::to_string(band.bits));
    if (i > 0 && plan.bands[i - 1].bits == band.bits)
      json_fail(place, "bands", "neighbours of different bits",
                std::to_string(band.bits) + " twice");
    strips += band.strips;
  }
  if (plan.bands.size() < 2)
    json_fail(place, "bands", "two or more", std::to_string(plan.bands.size()));
  if (strips != kernels::strip_count(N))
    json_fail(place, "bands", std::to_string(kernels::strip_count(N)) + " strips",
              std::to_string(strips));
}

MatrixPlan plan_from_json(const std::string& name, const nlohmann::json& record, int64_t N,
                          int64_t K, const std::string& file) {
  const std::string where = "record of matrix " + printable(name);
  const JsonPlace place{file, where};
  if (!record.is_object()) json_fail(place, "record", "an object", record.type_name());
  MatrixPlan plan;
  plan.name = name;
  json_int(record, "rows", N, N, place);
  json_int(record, "cols", K, K, place);
  std::vector<std::string_view> known = {"rows", "cols"};
  if (record.contains("bands")) {
    known.emplace_back("bands");
    plan.bands = bands_from_json(record["bands"], N, place);
  } else {
    known.emplace_back("bits");
    plan.bits = static_cast<int>(json_int(record, "bits", 2, kFloatBits, place));
  }
  if (plan.bits != kFloatBits) {
    known.insert(known.end(), {"group", "grid"});
    plan.group = json_int(record, "group", 1, kernels::kMaxColumns, place);
    const std::string grid = json_string(record, "grid", place);
    const auto found = std::find(std::begin(kGridNames), std::end(kGridNames), grid);
    if (found == std::end(kGridNames))
      json_fail(place, "grid", "seq, lsq or asym", printable(grid));
    plan.grid = static_cast<Grid>(found - std::begin(kGridNames));
  }
  if (record.contains("hadamard")) {
    known.insert(known.end(), {"hadamard", "seed"});
    plan.rotation.hadamard = json_int(record, "hadamard", kMinHadamard, kMaxHadamard, place);
    plan.rotation.seed = parse_hex64(json_string(record, "seed", place), "seed", place);
  }
  json_only(record, known, place);
  validate(plan, N, K, file);
  return plan;
}

// Field name and member of the integers in the `tokenizer` record.
struct TokenField {
  const char* name;
  int32_t Vocab::*member;
};
constexpr TokenField kTokenFields[] = {{"bos", &Vocab::bos},
                                       {"eos", &Vocab::eos},
                                       {"eot", &Vocab::eot},
                                       {"unk", &Vocab::unk},
                                       {"pad", &Vocab::pad}};

struct GenerationField {
  const char* name;
  float GenerationDefaults::*member;
};
constexpr GenerationField kGenerationFields[] = {
    {"temperature", &GenerationDefaults::temperature},
    {"top_p", &GenerationDefaults::top_p},
    {"min_p", &GenerationDefaults::min_p},
    {"repeat_penalty", &GenerationDefaults::repeat_penalty}};

}  // namespace

VocabSizes sizes_of(const Vocab& vocab) {
  VocabSizes sizes;
  sizes.tokens = static_cast<int64_t>(vocab.tokens.size());
  for (const std::string& token : vocab.tokens)
    sizes.text_bytes += static_cast<int64_t>(token.size());
  sizes.merges = static_cast<int64_t>(vocab.merges.size());
  sizes.scores = !vocab.scores.empty();
  sizes.charsmap = static_cast<int64_t>(vocab.charsmap.size());
  return sizes;
}

std::vector<StoredTensor> stored_tensors(const ModelConfig& config, const VocabSizes& vocab,
                                         const std::map<std::string, MatrixPlan>& plans) {
  std::vector<StoredTensor> out;
  if (vocab.text_bytes > 0) out.push_back(stored("tokenizer.text", "U8", {vocab.text_bytes}));
  out.push_back(stored("tokenizer.offsets", "I32", {vocab.tokens + 1}));
  out.push_back(stored("tokenizer.types", "U8", {vocab.tokens}));
  if (vocab.scores) out.push_back(stored("tokenizer.scores", "F32", {vocab.tokens}));
  if (vocab.merges > 0) out.push_back(stored("tokenizer.merges", "I32", {vocab.merges, 3}));
  if (vocab.charsmap > 0) out.push_back(stored("tokenizer.charsmap", "U8", {vocab.charsmap}));
  for (const TensorInfo& info : whole_table(config)) {
    if (may_be_quantized(info.role)) {
      add_matrix(out, plans.at(info.name), info.shape[0], info.shape[1]);
    } else {
      out.push_back(stored(info.name, "F32", info.shape, info.name));
    }
  }
  return out;
}

std::vector<Band> bands_of(const MatrixPlan& plan, int64_t N) {
  if (!plan.bands.empty()) return plan.bands;
  return {{kernels::strip_count(N), plan.bits}};
}

void set_bands(std::span<const Band> bands, MatrixPlan* plan) {
  std::vector<Band> joined;
  for (const Band& band : bands)
    if (!joined.empty() && joined.back().bits == band.bits)
      joined.back().strips += band.strips;
    else
      joined.push_back(band);
  const bool one = joined.size() == 1;
  plan->bits = one ? joined.front().bits : 0;
  plan->bands = one ? std::vector<Band>() : std::move(joined);
}

void validate(const MatrixPlan& plan, int64_t N, int64_t K, const std::string& file) {
  const std::string where = "record of matrix " + printable(plan.name);
  const JsonPlace place{file, where};
  if (plan.bits != kFloatBits) {
    if (!plan.bands.empty()) validate_bands(plan, N, place);
    if (plan.bands.empty() ? !kernels::valid_bits(plan.bits) : plan.bits != 0)
      json_fail(place, "bits", "2, 3, 4, 8 or 32", std::to_string(plan.bits));
    if (!kernels::valid_group(plan.group, K))
      json_fail(place, "group", "32, 64, 128 or " + std::to_string(K), std::to_string(plan.group));
    if (plan.grid > Grid::kAsym) json_fail(place, "grid", "seq, lsq or asym", "another");
  }
  const int64_t block = plan.rotation.hadamard;
  if (block != 0 && (block < kMinHadamard || block > kMaxHadamard || (block & (block - 1)) != 0 ||
                     K % block != 0))
    json_fail(place, "hadamard", "a power of two in 32..512 that divides " + std::to_string(K),
              std::to_string(block));
  if (block == 0 && plan.rotation.seed != 0)
    json_fail(place, "seed", "0 without rotation", "another");
}

int64_t stored_bytes(const MatrixPlan& plan, int64_t N, int64_t K) {
  std::vector<StoredTensor> parts;
  add_matrix(parts, plan, N, K);
  int64_t bytes = 0;
  for (const StoredTensor& part : parts) bytes += part.stored_bytes;
  return bytes;
}

std::string matrices_to_json(const ModelConfig& config,
                             const std::map<std::string, MatrixPlan>& plans) {
  nlohmann::ordered_json records = nlohmann::ordered_json::object();
  for (const TensorInfo& info : whole_table(config)) {
    if (!may_be_quantized(info.role)) continue;
    const MatrixPlan& plan = plans.at(info.name);
    nlohmann::ordered_json record;
    record["rows"] = info.shape[0];
    record["cols"] = info.shape[1];
    if (plan.bands.empty()) record["bits"] = plan.bits;
    for (const Band& band : plan.bands) record["bands"].push_back({band.strips, band.bits});
    if (plan.bits != kFloatBits) {
      record["group"] = plan.group;
      record["grid"] = kGridNames[static_cast<std::size_t>(plan.grid)];
    }
    if (plan.rotation.hadamard != 0) {
      record["hadamard"] = plan.rotation.hadamard;
      record["seed"] = hex64(plan.rotation.seed);
    }
    records[info.name] = std::move(record);
  }
  return json_dump(records);
}

std::map<std::string, MatrixPlan> matrices_from_json(const std::string& text,
                                                     const ModelConfig& config,
                                                     const std::string& file) {
  const JsonPlace place{file, "matrices"};
  const nlohmann::json records = parse_json_object(text, place, kMaxRecordBytes);
  std::map<std::string, MatrixPlan> plans;
  for (const TensorInfo& info : whole_table(config)) {
    if (!may_be_quantized(info.role)) continue;
    const auto found = records.find(info.name);
    if (found == records.end()) json_fail(place, "record", printable(info.name), "nothing");
    plans.emplace(info.name, plan_from_json(info.name, *found, info.shape[0], info.shape[1], file));
  }
  if (records.size() != plans.size())
    json_fail(place, "records", std::to_string(plans.size()) + " matrices",
              std::to_string(records.size()));
  return plans;
}

std::string tokenizer_to_json(const Vocab& vocab) {
  const VocabSizes sizes = sizes_of(vocab);
  nlohmann::ordered_json json;
  json["model"] = vocab.model;
  json["pre"] = vocab.pre;
  json["tokens"] = sizes.tokens;
  json["text_bytes"] = sizes.text_bytes;
  json["merges"] = sizes.merges;
  json["scores"] = sizes.scores;
  for (const TokenField& field : kTokenFields) json[field.name] = vocab.*field.member;
  json["add_bos"] = vocab.add_bos;
  json["add_space_prefix"] = vocab.add_space_prefix;
  json["stop"] = vocab.stop;
  if (is_sentencepiece(vocab))
    json["sentencepiece"] = {{"remove_extra_spaces", vocab.remove_extra_spaces},
                             {"escape_spaces", vocab.escape_spaces},
                             {"space_suffix", vocab.space_suffix},
                             {"charsmap_bytes", sizes.charsmap}};
  return json_dump(json);
}

// Files written before there was the record lack it: what its absence means are Vocab's defaults.
static void sentencepiece_from_json(const nlohmann::json& json, Vocab& vocab, VocabSizes& sizes,
                                    const std::string& file) {
  const JsonPlace place{file, "tokenizer.sentencepiece"};
  if (!json.is_object()) json_fail(place, "value", "an object", json.type_name());
  json_only(json, {"remove_extra_spaces", "escape_spaces", "space_suffix", "charsmap_bytes"},
            place);
  vocab.remove_extra_spaces = json_bool(json, "remove_extra_spaces", place);
  vocab.escape_spaces = json_bool(json, "escape_spaces", place);
  vocab.space_suffix = json_bool(json, "space_suffix", place);
  sizes.charsmap = json_int(json, "charsmap_bytes", 0, kMaxCharsmapBytes, place);
}

VocabSizes tokenizer_from_json(const std::string& text, Vocab& vocab, const std::string& file) {
  const JsonPlace place{file, "tokenizer"};
  const nlohmann::json json = parse_json_object(text, place, kMaxRecordBytes);
  std::vector<std::string_view> known = {"model",  "pre",          "tokens",  "text_bytes",
                                         "merges", "scores",       "add_bos", "add_space_prefix",
                                         "stop",   "sentencepiece"};
  VocabSizes sizes;
  vocab.model = json_string(json, "model", place);
  vocab.pre = json_string(json, "pre", place);
  sizes.tokens = json_int(json, "tokens", 1, kMaxVocab, place);
  sizes.text_bytes = json_int(json, "text_bytes", 0, INT32_MAX, place);
  sizes.merges = json_int(json, "merges", 0, kMaxMerges, place);
  sizes.scores = json_bool(json, "scores", place);
  for (const TokenField& field : kTokenFields) {
    known.push_back(field.name);
    vocab.*field.member =
        static_cast<int32_t>(json_int(json, field.name, -1, sizes.tokens - 1, place));
  }
  vocab.add_bos = json_bool(json, "add_bos", place);
  vocab.add_space_prefix = json_bool(json, "add_space_prefix", place);
  const auto stop = json.find("stop");
  if (stop == json.end() || !stop->is_array())
    json_fail(place, "stop", "an array", "another value");
  for (const auto& id : *stop) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(sizes.tokens))
      json_fail(place, "stop", "token ids", "another value");
    vocab.stop.push_back(id.get<int32_t>());
  }
  if (const auto record = json.find("sentencepiece"); record != json.end())
    sentencepiece_from_json(*record, vocab, sizes, file);
  json_only(json, known, place);
  return sizes;
}

std::string to_json(const GenerationDefaults& generation) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const GenerationField& field : kGenerationFields)
    if (generation.*field.member >= 0)
      json[field.name] = static_cast<double>(generation.*field.member);
  if (generation.top_k >= 0) json["top_k"] = generation.top_k;
  return json_dump(json);
}

GenerationDefaults generation_from_json(const std::string& text, const std::string& file) {
  const JsonPlace place{file, "generation"};
  const nlohmann::json json = parse_json_object(text, place, kMaxRecordBytes);
  std::vector<std::string_view> known = {"top_k"};
  GenerationDefaults generation;
  for (const GenerationField& field : kGenerationFields) {
    known.push_back(field.name);
    if (!json.contains(field.name)) continue;
    const float value = json_float(json, field.name, place);
    if (!(value >= 0 && value <= 1000))
      json_fail(place, field.name, "0..1000", std::to_string(value));
    generation.*field.member = value;
  }
  if (json.contains("top_k")) generation.top_k = json_int(json, "top_k", 0, kMaxVocab, place);
  json_only(json, known, place);
  return generation;
}

std::string tensor_checksum(std::string_view name, std::span<const uint8_t> data,
                            std::span<const uint8_t> padding) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                       XXH3_freeState);
  if (!state) throw std::bad_alloc();
  XXH3_64bits_reset(state.get());
  XXH3_64bits_update(state.get(), name.data(), name.size());
  XXH3_64bits_update(state.get(), "", 1);
  XXH3_64bits_update(state.get(), data.data(), data.size());
  XXH3_64bits_update(state.get(), padding.data(), padding.size());
  return hex64(XXH3_64bits_digest(state.get()));
}

std::string header_checksum(std::string_view header) {
  std::string text(header);
  const auto key = text.find(kHeaderChecksumKey);
  if (key != std::string::npos && text.size() - key >= kHeaderChecksumKey.size() + kChecksumDigits)
    text.replace(key + kHeaderChecksumKey.size(), kChecksumDigits, kChecksumDigits, '0');
  return hex64(XXH3_64bits(text.data(), text.size()));
}

}  // namespace crumb::models
