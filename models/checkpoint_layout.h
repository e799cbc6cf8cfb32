// What reader and writer of `.crumb` files must agree on: the list of stored tensors and the JSON
// records. Internal to models/; the specification in words is FORMAT.md.
#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/safetensors.h"

namespace crumb::models {

inline constexpr std::string_view kFormatName = "crumb/1";
inline constexpr uint64_t kMaxCrumbHeader = 16u << 20;
inline constexpr uint64_t kTensorAlign = 64;
inline constexpr int kFloatBits = 32;
// `"header_checksum":"` followed by 16 digits: cannot occur inside a JSON string, where quotes are
// escaped.
inline constexpr std::string_view kHeaderChecksumKey = "\"header_checksum\":\"";
inline constexpr std::size_t kChecksumDigits = 16;

// Sizes of the tokenizer's tensors.
struct VocabSizes {
  int64_t tokens = 0, text_bytes = 0, merges = 0, charsmap = 0;
  bool scores = false;
};
VocabSizes sizes_of(const Vocab& vocab);

// One tensor of the file. `bytes` is the real size, `stored_bytes` the padded one (of
// `stored_shape`).
struct StoredTensor {
  std::string name;
  std::string_view dtype;
  std::vector<int64_t> stored_shape;
  int64_t bytes = 0, stored_bytes = 0;
  std::string table_name;  // of the tensor it belongs to, empty for the tokenizer's
};

// All tensors of a file in their order: tokenizer, then tensor_table(config) with each matrix as
// its plan says.
std::vector<StoredTensor> stored_tensors(const ModelConfig& config, const VocabSizes& vocab,
                                         const std::map<std::string, MatrixPlan>& plans);

// FormatError if bits, bands, group, grid or rotation are not lawful for a matrix [N, K].
void validate(const MatrixPlan& plan, int64_t N, int64_t K, const std::string& file);

// The `matrices`, `tokenizer` and `generation` records.
std::string matrices_to_json(const ModelConfig& config,
                             const std::map<std::string, MatrixPlan>& plans);
std::map<std::string, MatrixPlan> matrices_from_json(const std::string& text,
                                                     const ModelConfig& config,
                                                     const std::string& file);
std::string tokenizer_to_json(const Vocab& vocab);
// Everything but the arrays.
VocabSizes tokenizer_from_json(const std::string& text, Vocab& vocab, const std::string& file);
std::string to_json(const GenerationDefaults& generation);
GenerationDefaults generation_from_json(const std::string& text, const std::string& file);

// xxh3-64 of the tensor's name, a zero byte and its stored bytes; 16 hexadecimal digits.
std::string tensor_checksum(std::string_view name, std::span<const uint8_t> data,
                            std::span<const uint8_t> padding = {});
// xxh3-64 of the header with its own 16 digits as '0'.
std::string header_checksum(std::string_view header);

}  // namespace crumb::models
