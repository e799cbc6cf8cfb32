// Text made by a model on the CPU: the slow obvious twin of cuda/generate.h.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/progress.h"
#include "quant/train/text_script.h"

namespace crumb::quant::train {

// Rows first_row .. first_row + rows of `length` ids each, [rows, length]; other numbers, other
// text. They are the same whatever the threads, and however many are asked for at a time. Computed
// in the precision of `engine` with float32 keys and values. `progress` (may be empty) counts
// tokens; Interrupted is thrown when it returns false. Throws Error: kUsage for a prefix that is
// too long, kMemory, kNumeric for logits that are not finite.
std::vector<int32_t> write_text(const std::shared_ptr<const Engine>& engine,
                                const TextScript& script, const Sampling& sampling,
                                int64_t first_row, int64_t rows, int64_t length,
                                const ProgressFn& progress = {});
// Rows that are at work together, for train_need().
inline constexpr int64_t kRowsAtOnce = 32;

}  // namespace crumb::quant::train
