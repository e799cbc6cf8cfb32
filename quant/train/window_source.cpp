#include "quant/train/window_source.h"

#include <cassert>
#include <utility>

namespace crumb::quant::train {

WindowSource::WindowSource(const TrainRecipe& recipe, const TokenData& data, WriteRows write)
    : recipe_(recipe), data_(data), write_(std::move(write)) {
  assert(recipe.generated_windows() == 0 || write_);
}

std::vector<int32_t> WindowSource::next(int64_t cursor) {
  const int64_t all = recipe_.step_windows(), made = recipe_.generated_windows();
  const int64_t read = all - made, step = cursor / all;
  std::vector<int32_t> ids;
  if (read > 0) ids = next_windows(data_, recipe_.window, read, step * read, recipe_.seed);
  if (made > 0) append_generated(step * made, made, &ids);
  return ids;
}

void WindowSource::append_generated(int64_t first, int64_t rows, std::vector<int32_t>* ids) {
  const int64_t chunk = recipe_.generate->rows;
  for (int64_t row = first; row < first + rows; ++row) {
    const int64_t from = row - row % chunk;
    if (from != pool_first_) {
      pool_ = write_(from, chunk);
      pool_first_ = from;
    }
    const auto begin = pool_.begin() + (row - from) * recipe_.window;
    ids->insert(ids->end(), begin, begin + recipe_.window);
  }
}

}  // namespace crumb::quant::train
