// Text made by a model on the GPU, many rows at once.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "models/source.h"
#include "quant/train/cuda/decode.h"

namespace crumb::quant::train::cuda {

// JSON: {"prefixes": [[ids]], "headers": [[ids]], "end": id}; headers and end may be absent.
struct TextScript {
  std::vector<std::vector<int32_t>> prefixes, headers;
  int32_t end = -1;
};
// Throws Error(kUsage) for another text, or ids outside [0, V).
TextScript script_from_json(const std::string& text, int64_t V);

struct GenerateOptions {
  int64_t rows = 4096, batch = 4096;  // in all (rounded up to whole batches), at once
  int64_t length = 512;               // tokens of a row
  int64_t first_row = 0;              // number of the first row: other numbers, other text
  Sampling sampling;
  int tune = 0;
};
struct GenerateReport {
  int64_t rows = 0, duplicates = 0;  // rows written; rows left out because they were there before
  double seconds = 0;                // of generation, without loading
};

// Writes rows of `length` u16 ids each to `path`. The same options give the same file on one kind
// of card; another batch may round otherwise. `progress` gets rows done and tokens a second. Throws
// Error: kUsage, kMemory, kIo.
GenerateReport generate(const models::SourceModel& model, const TextScript& script,
                        const GenerateOptions& options, const std::string& path,
                        const std::function<void(int64_t rows, double speed)>& progress);

}  // namespace crumb::quant::train::cuda
