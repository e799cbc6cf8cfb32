// The importers behind open_source(), and what they share. Internal to models/.
#pragma once
#include "models/content_hash.h"
#include "models/gguf.h"
#include "models/mapped_file.h"
#include "models/source.h"

namespace crumb::models {

SourceModel import_gguf(MappedFile file);
SourceModel import_crumb(MappedFile file);
SourceModel import_hugging_face(const std::string& folder);

// The tokenizer.* keys of a file with V = `vocab` tokens.
Vocab import_vocab(const GgufFile& gguf);

// Error(ExitCode::kNumeric) naming tensor and row if a value is NaN or infinite; row [K].
void require_finite(std::span<const float> row, std::string_view tensor, int64_t index,
                    const std::string& file);

}  // namespace crumb::models
