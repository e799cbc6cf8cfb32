// Distiller in float32 on the CPU: the slow obvious twin of the GPU's, and the trainer of machines
// without one. One window at a time, on the caller's thread.
#pragma once
#include <memory>

#include "models/source.h"
#include "quant/train/distiller.h"
#include "quant/train/student.h"

namespace crumb::quant::train {

// `student_source` is the start checkpoint in full precision: its embedding (and head) are the
// student's, frozen. S: tokens of a window.
std::unique_ptr<Distiller> make_cpu_distiller(const models::SourceModel& teacher,
                                              const models::SourceModel& student_source,
                                              const Student& student, int64_t S);

}  // namespace crumb::quant::train
