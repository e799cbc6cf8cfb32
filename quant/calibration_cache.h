// Full-precision statistics of blocks on disk, so that a second run, or one that was interrupted,
// does not walk the model again.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "models/config.h"
#include "quant/calibration.h"

namespace crumb::quant {

// One file a block: FOLDER/KEY-LAYER.calib, KEY = xxh3 of the source's hash, the windows' ids and
// their length. Little-endian:
//   "CRCALIB1", u64 layer, u64 inputs; for each input u64 K, u64 tokens, f32 mean_abs [K],
//   f32 max_abs [K], f32 lower triangle of H by rows [K (K + 1) / 2]; u64 xxh3 of all before.
class CalibrationCache {
 public:
  // Creates `folder` if it is not there. Throws IoError.
  CalibrationCache(std::string folder, const models::SourceModel& source,
                   const CalibrationWindows& windows);

  // Nothing if there is no such file. Throws IoError, and FormatError for a file that is damaged or
  // of another shape: size, checksum, header, values not finite, negative, or not those a second
  // moment can have (|H_ij|^2 <= H_ii H_jj, mean <= max, max^2 <= tokens * H_kk).
  std::optional<BlockStatistics> load(int64_t layer) const;
  // Atomically. Throws IoError.
  void save(int64_t layer, const BlockStatistics& statistics) const;
  std::string path(int64_t layer) const;

 private:
  std::string folder_, key_;
  models::ModelConfig config_;
  int64_t tokens_;
};

// Hexadecimal xxh3-64 of token ids and their division into windows.
std::string windows_hash(const CalibrationWindows& windows);

}  // namespace crumb::quant
