// A model in full precision, wherever it came from: a GGUF file, a Hugging Face folder, or a .crumb
// file through dequantization. The importer's result and the quantizer's, trainer's and reference
// engine's input.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "models/mapped_file.h"
#include "models/tensors.h"
#include "models/vocab.h"

namespace crumb::models {

struct MatrixView;  // models/checkpoint.h

struct SourceModel {
  ModelConfig config;
  Vocab vocab;
  std::string chat_template;  // Jinja source, empty if the model has none
  GenerationDefaults generation;
  std::string license;      // SPDX name, empty if unknown
  std::string description;  // e.g. "dequantized Q4_1" or "F16": what the weights were before
  uint64_t file_bytes = 0;
  std::string hash;  // xxh3-128 of the file, hexadecimal
  // Reads one tensor of tensor_table(config), dequantized, row-major; out has its size.
  // Thread-safe. Throws FormatError for an unknown name, NumericError text for NaN or infinity
  // naming tensor and row.
  std::function<void(std::string_view name, std::span<float> out)> read;
  // How a .crumb file stores a matrix; empty for other sources. Lives as long as `storage`.
  std::function<MatrixView(const std::string& name)> packed;
  std::shared_ptr<const void> storage;  // keeps the mapping behind `read` alive
};

// Whether the file at `path` is a .crumb (safetensors) file rather than a GGUF, by its first bytes.
// Throws IoError.
bool is_checkpoint(const std::string& path);

// Opens a Hugging Face folder, or a GGUF file or .crumb checkpoint by its first bytes, everything
// validated. Errors:
// FormatError (exit 3), IoError (exit 4).
SourceModel open_source(const std::string& path);
// One of the two files, already in memory.
SourceModel open_source(MappedFile file);

}  // namespace crumb::models
