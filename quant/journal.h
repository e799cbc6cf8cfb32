// The finished blocks of a job (quant/part_files.h).
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "quant/block_job.h"
#include "quant/part_files.h"

namespace crumb::quant {

// "Block 7" is part 7, the head comes after the last block. The key is the recipe, which names the
// source's hash and the calibration's; the magic is "CRJRNL02". The body:
//   u64 tensors; for each: text name, u64 bits (32: u64 n, f32 [n] follow,
//   and that is all), u64 rows, cols, group, grid, hadamard, seed, u64
//   bands and for each u64 strips, bits, f64 mse, relative_error,
//   output_error (-1: none), damping, u64 dead, codes, scales, zeros as u64 bytes and the bytes.
// A text is u64 bytes and the bytes.
class Journal {
 public:
  // Creates `folder` if it is not there; parts of other recipes in it are removed, with a notice.
  // Throws IoError.
  Journal(std::string folder, const std::string& recipe, const NoticeFn& notice);

  // Nothing if the part is not there, or is damaged: then with a notice.
  std::optional<StoredBlock> load(int64_t part) const;
  // Throws IoError.
  void save(int64_t part, const StoredBlock& block) const;
  // Removes the folder and what is in it.
  void remove() const;
  std::string path(int64_t part) const;

 private:
  PartFiles files_;
};

}  // namespace crumb::quant
