// What measure_model() has finished (quant/part_files.h): part 7 is block 7, the output moments
// come after the last block.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/source.h"
#include "quant/model_costs.h"
#include "quant/output_moments.h"
#include "quant/part_files.h"
#include "quant/plan.h"

namespace crumb::quant {

// The key is the recipe of `options` (before widths are chosen) and the two options of costs; the
// magic is "CRCOST01". Bodies, where an array is u64 bytes and the bytes:
//   a block: u64 matrices; for each: text name, u64 N, K, then for every width of kWidths the
//   arrays f64 strips and f64 columns.
//   the moments: u64 matrices; for each: text name, array f32 rows. Labels are not kept.
class CostJournal {
 public:
  // Throws IoError.
  CostJournal(std::string folder, const models::SourceModel& source, const QuantizeOptions& options,
              const CostOptions& costs, const NoticeFn& notice);

  std::optional<std::vector<MatrixCosts>> load_block(int64_t layer) const;
  void save_block(int64_t layer, const std::vector<MatrixCosts>& block) const;
  std::optional<OutputMoments> load_moments() const;
  void save_moments(const OutputMoments& moments) const;
  void remove() const { files_.remove(); }

 private:
  PartFiles files_;
  int64_t moments_part_;
};

}  // namespace crumb::quant
