// Models as other programs read them: GGUF files and Hugging Face folders. Weights are written as
// the floats they stand for (F32: exact), rounded to binary16, or, of a .crumb file, as GGUF blocks
// of the same values (models/export_blocks.h).
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "models/source.h"

namespace crumb::models {

enum class FloatType : uint8_t { kF32, kF16 };  // of matrices; norms and biases are F32

// Which packed matrices become blocks; all others are floats.
enum class BlockUse : uint8_t {
  kNone,
  kExact,  // those that some block type holds exactly
  kQ4_1    // where no exact type is smaller, those that Q4_1 holds with its offsets rounded
};

// What was written: matrices by the name of their type, and what rounding cost.
struct ExportSummary {
  std::map<std::string, int64_t> matrices;
  int64_t rounded = 0;      // matrices with a weight that is not what it was
  float largest_error = 0;  // of a weight, absolute
};

// Query and key rows of half-split architectures are permuted back to the file's order,
// SentencePiece options and spaces are written as converters do. FormatError if the format cannot
// say what the config says (the field is named), or a weight is too large for binary16. IoError.
// Of pruned models they hold those whose layers are all of one size, as a whole model.
ExportSummary write_gguf(const SourceModel& model, const std::string& path,
                         FloatType type = FloatType::kF32, BlockUse blocks = BlockUse::kNone);

// config.json, model.safetensors, tokenizer.json or tokenizer.model, tokenizer_config.json, and
// chat_template.jinja and generation_config.json if the model has them. `folder` must exist. Errors
// as above.
void write_hugging_face(const SourceModel& model, const std::string& folder,
                        FloatType type = FloatType::kF32);

// What both share.
// Row n of the result is row half_split_row(n) of ours undone; elements of `type`, little-endian.
std::string tensor_bytes(const SourceModel& model, const TensorInfo& info, int64_t half_split_heads,
                         float added, FloatType type, const std::string& file);
[[noreturn]] void cannot_say(const std::string& file, const std::string& what);
// The same model, as a whole one if it is pruned to layers of one size; refuses others.
SourceModel as_whole(const SourceModel& model, const std::string& file);
// The one divisor of all frequencies (1: unscaled), or 0 if they differ.
float common_rope_factor(const ModelConfig& config);

}  // namespace crumb::models
