// A training run on disk.
//
// Full: everything, so that a resumed run gives the bytes of an uninterrupted one. Two files take
// turns, so that one is always whole.
// Compact: what must cross from one machine to the next. Masters in 8 bits around their cells
// (codes are kept exactly, the place within a cell to 1 / 42 step at INT2), scales and norms as
// they are, no moments: about one byte a weight, in pieces. What restarting the optimiser costs is
// the caller's to measure.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "quant/train/distiller.h"
#include "quant/train/student.h"

namespace crumb::quant::train {

// Where a run stands.
struct TrainingPlace {
  int64_t step = 0;          // optimiser steps done
  int64_t cursor = 0;        // windows used
  int64_t restarts = 0;      // of the optimiser, from compact states
  int64_t moments_from = 0;  // the step the optimiser last started at
  std::string recipe;        // the job's JSON: a state belongs to one job
};

struct TrainingFile {
  TrainingPlace place;
  TrainingState state;
};

// Writes PREFIX.a or PREFIX.b, whichever is older or missing. Throws IoError.
void save_full(const std::string& prefix, const TrainingPlace& place, const TrainingState& state);
// The newer of the two that is whole; nothing if there is none. Throws FormatError if both are
// damaged.
std::optional<TrainingFile> load_full(const std::string& prefix);

// Writes PREFIX.00, .01, ... of at most 16 MiB each; returns how many. `student` gives form and
// layout. Throws Error(kUsage) if widths or inputs are learned: they are not kept.
int save_compact(const std::string& prefix, const Student& student, const TrainingFile& training);
// Where such a run stands. Throws FormatError, IoError.
TrainingPlace compact_place(const std::string& prefix);
// Moments come back as zeros. Throws FormatError (missing piece, damage, another model), IoError.
TrainingFile load_compact(const std::string& prefix, const Student& student);

}  // namespace crumb::quant::train
