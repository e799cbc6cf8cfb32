// LDLQ of a matrix whose bands of rows have different widths. Rows are rounded independently, so
// the result is, row by row, what ldlq() of the whole matrix at the row's width gives.
#pragma once
#include <span>
#include <vector>

#include "models/bands.h"
#include "quant/ldlq.h"

namespace crumb::quant {

// w [N, K]; `bands` cover its strips; options.bits is not used. One Rounded a band, top to bottom,
// for pack_bands(). Independent of the number of threads.
std::vector<Rounded> ldlq_bands(std::span<const float> w, int64_t N, int64_t K,
                                const Factor& factor, std::span<const models::Band> bands,
                                const LdlqOptions& options, int threads = 0);

}  // namespace crumb::quant
