// What a long job has finished, on disk, so that a job that was killed goes on where it was.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "models/config.h"
#include "quant/block_job.h"

namespace crumb::quant {

// Lines for the user that are no errors: what was resumed, damped or repeated. May be empty.
using NoticeFn = std::function<void(const std::string&)>;

// A folder with one file a part of the model ("block 7" is part 7, the head comes after the last
// block), written atomically: FOLDER/KEY-PART, KEY = xxh3 of the recipe, which names the source's
// hash and the calibration's. Little-endian:
//   "CRJRNL02", u64 part, u64 tensors; for each: text name, u64 bits (32: u64 n, f32 [n] follow,
//   and that is all), u64 rows, cols, group, grid, hadamard, seed, u64
//   bands and for each u64 strips, bits, f64 mse, relative_error,
//   output_error (-1: none), damping, u64 dead, codes, scales, zeros as u64 bytes and the bytes;
//   u64 xxh3 of all before. A text is u64 bytes and the bytes.
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
  StoredBlock read(int64_t part) const;

  std::string folder_, key_;
  NoticeFn notice_;
};

}  // namespace crumb::quant
