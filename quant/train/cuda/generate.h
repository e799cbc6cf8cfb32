// Text made by a model on the GPU, many rows at once.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/source.h"
#include "quant/train/text_script.h"
#include "quant/train/window_source.h"

namespace crumb::quant::train::cuda {

struct GenerateOptions {
  int64_t rows = 4096, batch = 4096;  // in all (rounded up to whole batches), at once
  int64_t length = 512;               // tokens of a row
  int64_t first_row = 0;              // number of the first row: other numbers, other text
  Sampling sampling;
  int tune = 0;
};

// Writes rows beside each other, `batch` at a time; keeps the model and its cache on the GPU that
// is current when it is made. Throws Error: kUsage for options or a script it cannot follow,
// kMemory.
class RowWriter {
 public:
  RowWriter(const models::SourceModel& model, const TextScript& script, const Sampling& sampling,
            int64_t batch, int64_t length, int tune);
  ~RowWriter();
  RowWriter(const RowWriter&) = delete;
  RowWriter& operator=(const RowWriter&) = delete;
  // ids [batch, length] of rows first_row .. first_row + batch.
  std::vector<int32_t> write(int64_t first_row);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Rows first .. first + rows, shared between `gpus` GPUs, a writer each: [rows, length]. `batch` on
// each at a time; the last rows may be written in vain. Throws what RowWriter throws.
WriteRows make_row_writers(const models::SourceModel& model, const TextScript& script,
                           const Sampling& sampling, int64_t batch, int64_t length, int gpus);

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
