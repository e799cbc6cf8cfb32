// What a training job on the CPU will take, before it is begun.
#pragma once
#include <cstdint>

#include "models/config.h"
#include "quant/train/train_recipe.h"

namespace crumb::quant::train {

struct TrainNeed {
  int64_t bytes = 0;      // peak of the process
  double step = 0;        // multiplications and additions of a step's matrix products
  double evaluation = 0;  // of the kept-back windows once
  double generation = 0;  // of the rows that a step uses, if the teacher writes them
};
// `kept_windows`: as many as the text has. Attention's products are counted over whole windows.
TrainNeed train_need(const models::ModelConfig& config, const TrainRecipe& recipe,
                     int64_t kept_windows, int threads);

// Evaluations of the kept-back windows after `from_step` steps; at 0 one before the first.
int64_t evaluations(const TrainRecipe& recipe, int64_t from_step);

}  // namespace crumb::quant::train
