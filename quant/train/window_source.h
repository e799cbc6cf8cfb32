// The windows of every step: read from the text, or written by the teacher while the student
// learns.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "quant/train/token_data.h"
#include "quant/train/train_recipe.h"

namespace crumb::quant::train {

// Rows first .. first + rows of text by the teacher, [rows, window]. The same numbers give the same
// text.
using WriteRows = std::function<std::vector<int32_t>(int64_t first, int64_t rows)>;

// A step's windows depend on recipe, text and cursor only: first those of the text, in its shuffled
// order, then generated_windows() rows that no other step has. Rows are written
// recipe.generate->rows at a time; the latest are kept.
class WindowSource {
 public:
  // `data` must outlive the object; `write` is needed if the recipe generates.
  WindowSource(const TrainRecipe& recipe, const TokenData& data, WriteRows write);
  // ids [step_windows() * window] of the step that begins `cursor` windows from the start. Throws
  // what `write` throws.
  std::vector<int32_t> next(int64_t cursor);

 private:
  void append_generated(int64_t first, int64_t rows, std::vector<int32_t>* ids);

  const TrainRecipe& recipe_;
  const TokenData& data_;
  WriteRows write_;
  std::vector<int32_t> pool_;  // [rows, window]
  int64_t pool_first_ = -1;    // number of its first row
};

}  // namespace crumb::quant::train
