#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>

#include "models/checkpoint.h"
#include "models/checkpoint_layout.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/json_text.h"
#include "models/text.h"

namespace crumb::models {
namespace {

template <class T>
std::span<const uint8_t> bytes_of(std::span<const T> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}
template <class T>
std::span<const uint8_t> bytes_of(const std::vector<T>& values) {
  return bytes_of(std::span<const T>(values));
}

void require_utf8(const std::string& text, const char* what, const std::string& path) {
  if (!valid_utf8(text))
    throw FormatError("invalid " + std::string(what) + " (" + path +
                      ": expected UTF-8, found other bytes)");
}

// All that the header says, but the checksums.
struct FileLayout {
  std::map<std::string, std::string> texts;  // of __metadata__
  std::map<std::string, MatrixPlan> plans;
  std::vector<StoredTensor> tensors;
};

// The JSON text, padded with spaces; the same length whatever the checksums are.
std::string header_text(const FileLayout& layout, const std::vector<std::string>& checksums) {
  nlohmann::ordered_json json, sums = nlohmann::ordered_json::object();
  for (std::size_t i = 0; i < layout.tensors.size(); ++i)
    sums[layout.tensors[i].name] =
        i < checksums.size() ? checksums[i] : std::string(kChecksumDigits, '0');
  nlohmann::ordered_json& metadata = json["__metadata__"];
  metadata["format"] = kFormatName;
  metadata["header_checksum"] = std::string(kChecksumDigits, '0');
  for (const auto& [key, text] : layout.texts) metadata[key] = text;
  metadata["checksums"] = json_dump(sums);
  uint64_t offset = 0;
  for (const StoredTensor& tensor : layout.tensors) {
    const uint64_t end = offset + static_cast<uint64_t>(tensor.stored_bytes);
    json[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.stored_shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json_dump(json);
  // 8 bytes of length stand before it.
  text.append((kTensorAlign - (text.size() + 8) % kTensorAlign) % kTensorAlign, ' ');
  const std::string checksum = header_checksum(text);
  text.replace(text.find(kHeaderChecksumKey) + kHeaderChecksumKey.size(), kChecksumDigits,
               checksum);
  return text;
}

void validate(const CheckpointHeader& header, const std::string& path) {
  validate(header.config, path);
  validate(header.vocab, path);
  if (static_cast<int64_t>(header.vocab.tokens.size()) != header.config.vocab)
    throw FormatError("invalid vocabulary (" + path + ": expected " +
                      std::to_string(header.config.vocab) + " tokens, found " +
                      std::to_string(header.vocab.tokens.size()) + ")");
  if (sizes_of(header.vocab).text_bytes > INT32_MAX)
    throw FormatError("invalid vocabulary (" + path +
                      ": expected less than 2^31 bytes of text, found more)");
  require_utf8(header.chat_template, "chat template", path);
  require_utf8(header.license, "license", path);
  require_utf8(header.recipe, "recipe", path);
}

// Features that the plans use, comma-separated. Throws for plans that are not the model's.
std::string required_features(const ModelConfig& config,
                              const std::map<std::string, MatrixPlan>& plans,
                              const std::string& path) {
  bool rotated = false, banded = false;
  std::size_t matrices = 0;
  for (const TensorInfo& info : whole_table(config)) {
    if (!may_be_quantized(info.role)) continue;
    const auto plan = plans.find(info.name);
    if (plan == plans.end()) throw std::logic_error("CheckpointWriter: no plan for " + info.name);
    validate(plan->second, info.shape[0], info.shape[1], path);
    rotated = rotated || plan->second.rotation.hadamard != 0;
    banded = banded || !plan->second.bands.empty();
    ++matrices;
  }
  if (plans.size() != matrices)
    throw std::logic_error("CheckpointWriter: a plan names no matrix of the model");
  std::string features = rotated ? "rotation" : "";
  const auto add = [&](const char* feature) {
    features += (features.empty() ? "" : ",") + std::string(feature);
  };
  if (banded) add("bands");
  if (config.block != BlockOptions{}) add("block");
  if (!config.pruned.empty()) add("pruned");
  if (config.vision) add("vision");
  return features;
}

FileLayout lay_out(const CheckpointHeader& header, const std::vector<MatrixPlan>& plans,
                   const std::string& path) {
  validate(header, path);
  FileLayout layout;
  for (const MatrixPlan& plan : plans) layout.plans.emplace(plan.name, plan);
  const std::string required = required_features(header.config, layout.plans, path);
  layout.texts = {{"required", required},
                  {"config", to_json(header.config)},
                  {"tokenizer", tokenizer_to_json(header.vocab)},
                  {"generation", to_json(header.generation)},
                  {"matrices", matrices_to_json(header.config, layout.plans)},
                  {"chat_template", header.chat_template},
                  {"license", header.license},
                  {"recipe", header.recipe}};
  layout.tensors = stored_tensors(header.config, sizes_of(header.vocab), layout.plans);
  return layout;
}

}  // namespace

int64_t checkpoint_bytes(const CheckpointHeader& header, const std::vector<MatrixPlan>& plans) {
  const FileLayout layout = lay_out(header, plans, "planned file");
  auto bytes = static_cast<int64_t>(8 + header_text(layout, {}).size());
  for (const StoredTensor& tensor : layout.tensors) bytes += tensor.stored_bytes;
  return bytes;
}

struct CheckpointWriter::State {
  FileWriter file;
  std::string path;
  FileLayout layout;
  std::vector<std::string> checksums;  // [tensors written]
  uint64_t header_bytes = 0;

  explicit State(const std::string& target) : file(target), path(target) {}

  void write_tensor(std::string_view name, std::span<const uint8_t> data);
  void write_vocab(const Vocab& vocab);
  // The table's tensor whose turn it is.
  const std::string& expected() const;
};

void CheckpointWriter::State::write_tensor(std::string_view name, std::span<const uint8_t> data) {
  const std::size_t next = checksums.size();
  if (next == layout.tensors.size() || layout.tensors[next].name != name)
    throw std::logic_error("CheckpointWriter: tensor " + std::string(name) +
                           " is not the next one");
  const StoredTensor& tensor = layout.tensors[next];
  if (static_cast<int64_t>(data.size()) != tensor.bytes)
    throw std::logic_error("CheckpointWriter: tensor " + tensor.name + " has " +
                           std::to_string(data.size()) + " bytes, not " +
                           std::to_string(tensor.bytes));
  const std::vector<uint8_t> padding(static_cast<std::size_t>(tensor.stored_bytes - tensor.bytes));
  file.write(data);
  file.write(padding);
  checksums.push_back(tensor_checksum(tensor.name, data, padding));
}

void CheckpointWriter::State::write_vocab(const Vocab& vocab) {
  std::string text;
  std::vector<int32_t> offsets = {0}, merges;
  for (const std::string& token : vocab.tokens) {
    text += token;
    offsets.push_back(static_cast<int32_t>(text.size()));
  }
  for (const auto& merge : vocab.merges) merges.insert(merges.end(), merge.begin(), merge.end());
  if (!text.empty()) write_tensor("tokenizer.text", bytes_of(std::span<const char>(text)));
  write_tensor("tokenizer.offsets", bytes_of(offsets));
  write_tensor("tokenizer.types", bytes_of(vocab.types));
  if (!vocab.scores.empty()) write_tensor("tokenizer.scores", bytes_of(vocab.scores));
  if (!merges.empty()) write_tensor("tokenizer.merges", bytes_of(merges));
  if (!vocab.charsmap.empty())
    write_tensor("tokenizer.charsmap", bytes_of(std::span<const char>(vocab.charsmap)));
}

const std::string& CheckpointWriter::State::expected() const {
  if (checksums.size() == layout.tensors.size())
    throw std::logic_error("CheckpointWriter: all tensors are written");
  return layout.tensors[checksums.size()].table_name;
}

CheckpointWriter::CheckpointWriter(const std::string& path, const CheckpointHeader& header,
                                   const std::vector<MatrixPlan>& plans) {
  FileLayout layout = lay_out(header, plans, path);
  state_ = std::make_unique<State>(path);
  state_->layout = std::move(layout);
  state_->header_bytes = header_text(state_->layout, {}).size();
  if (state_->header_bytes > kMaxCrumbHeader)
    throw FormatError("header too large (" + path + ": expected at most " +
                      std::to_string(kMaxCrumbHeader) + " bytes, found " +
                      std::to_string(state_->header_bytes) + ")");
  // Zeros until commit(): what a crash leaves is no lawful file under any name.
  state_->file.write(std::vector<uint8_t>(8 + state_->header_bytes));
  state_->write_vocab(header.vocab);
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::add(const std::string& name, const PackedData& data) {
  if (state_->expected() != name)
    throw std::logic_error("CheckpointWriter: " + name + " given, " + state_->expected() +
                           " is next");
  const auto found = state_->layout.plans.find(name);
  const bool as_planned = found != state_->layout.plans.end() && found->second.bits == data.bits &&
                          found->second.bands == data.bands && found->second.group == data.group &&
                          found->second.grid == data.grid &&
                          found->second.rotation == data.rotation;
  if (!as_planned)
    throw std::logic_error("CheckpointWriter: " + name + " is not packed as planned");
  constexpr uint16_t kExponent = 0x7c00;
  for (const uint16_t scale : data.scales)
    if ((scale & kExponent) == kExponent)
      throw Error(ExitCode::kNumeric,
                  "NaN or infinity in the scales of '" + name + "' (" + state_->path + ")");
  state_->write_tensor(name + ".codes", data.codes);
  state_->write_tensor(name + ".scales", bytes_of(data.scales));
  if (data.grid == kernels::Grid::kAsym) state_->write_tensor(name + ".zeros", data.zeros);
}

void CheckpointWriter::add(const std::string& name, std::span<const float> data) {
  if (!std::all_of(data.begin(), data.end(), [](float value) { return std::isfinite(value); }))
    throw Error(ExitCode::kNumeric,
                "NaN or infinity in tensor '" + name + "' (" + state_->path + ")");
  state_->write_tensor(name, bytes_of(data));
}

uint64_t CheckpointWriter::commit() {
  if (state_->checksums.size() != state_->layout.tensors.size())
    throw std::logic_error("CheckpointWriter: " +
                           state_->layout.tensors[state_->checksums.size()].name + " is missing");
  const std::string header = header_text(state_->layout, state_->checksums);
  if (header.size() != state_->header_bytes)
    throw std::logic_error("CheckpointWriter: the header changed its size");
  const auto length = std::bit_cast<std::array<uint8_t, 8>>(state_->header_bytes);
  state_->file.overwrite(0, length);
  state_->file.overwrite(8, bytes_of(std::span<const char>(header)));
  state_->file.commit();
  return state_->file.offset();
}

}  // namespace crumb::models
