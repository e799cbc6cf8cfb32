#include "quant/train/train_need.h"

#include <algorithm>

#include "quant/parallel.h"
#include "quant/train/block.h"
#include "quant/train/layout.h"
#include "quant/train/text_writer.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t kFloat = sizeof(float);
constexpr int64_t kChunk = 64;                   // tokens whose logits are held (cpu_distiller.cpp)
constexpr int64_t kProgram = int64_t{64} << 20;  // code, vocabulary, OpenBLAS, stacks

}  // namespace

TrainNeed train_need(const models::ModelConfig& c, const TrainRecipe& r, int64_t kept_windows,
                     int threads) {
  const ParameterLayout layout = parameter_layout(c, 0, r.embedding_rate > 0);
  const int64_t S = r.window, tokens = r.step_windows() * S, head = c.vocab * c.dim;
  const int64_t at_once = std::min<int64_t>(resolve_threads(threads), r.step_windows());
  TrainNeed need;
  const int64_t ends = head * (c.tied_head ? 1 : 2);
  // Teacher and student; parameters, two moments and a copy of these three at the end; gradients;
  // masters and two sets of codes of the fake quantization.
  need.bytes = kFloat * (2 * (layout.masters + ends) + 7 * layout.size + layout.masters) +
               2 * layout.masters + kProgram;
  // Of every window at work: a gradient, all activations and blocks' inputs, scratch, logits.
  const int64_t kept = S * ((c.layers + 2) * activation_floats(c) + (c.layers + 6) * c.dim);
  need.bytes += at_once * kFloat * (layout.masters + kept + 3 * std::min(kChunk, S) * c.vocab);
  // Teacher forward, student forward, backward to inputs and weights, to the head's only if it is
  // trained. Scores and sums of attention: two products forward, five backward.
  const auto blocks = static_cast<double>(layout.block_masters);
  const auto ends_size = static_cast<double>(head);
  const int head_passes = layout.embedding ? 4 : 3;
  const double attention =
      2.0 * static_cast<double>(c.layers * c.heads * c.head_dim) * static_cast<double>(S);
  need.step =
      static_cast<double>(tokens) * (2 * blocks * 4 + 2 * ends_size * head_passes + attention * 9);
  need.evaluation =
      static_cast<double>(kept_windows * S) * (2 * blocks * 2 + 2 * ends_size * 2 + attention * 4);
  if (r.generate) {
    // The teacher in the engine, keys and values of the rows at work, the rows that are kept.
    need.bytes += kFloat * (layout.masters + ends +
                            kRowsAtOnce * (2 * S * c.layers * c.kv_heads * c.head_dim + c.vocab) +
                            r.generate->rows * S);
    need.generation =
        static_cast<double>(r.generated_windows() * S) * (2 * (blocks + ends_size) + attention);
  }
  return need;
}

int64_t evaluations(const TrainRecipe& r, int64_t from_step) {
  const int64_t later = r.steps / r.evaluate_every - from_step / r.evaluate_every;
  return later + (r.steps % r.evaluate_every != 0 ? 1 : 0) + (from_step == 0 ? 1 : 0);
}

}  // namespace crumb::quant::train
