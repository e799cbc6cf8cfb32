// Models as other programs read them: GGUF files and Hugging Face folders. Weights are written as
// the floats they stand for (F32: exact), or rounded to binary16.
#pragma once
#include <cstdint>
#include <string>

#include "models/source.h"

namespace crumb::models {

enum class FloatType : uint8_t { kF32, kF16 };  // of matrices; norms and biases are F32

// Query and key rows of half-split architectures are permuted back to the file's order,
// SentencePiece options and spaces are written as converters do. FormatError if the format cannot
// say what the config says (the field is named), or a weight is too large for binary16. IoError.
void write_gguf(const SourceModel& model, const std::string& path,
                FloatType type = FloatType::kF32);

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
// The one divisor of all frequencies (1: unscaled), or 0 if they differ.
float common_rope_factor(const ModelConfig& config);

}  // namespace crumb::models
