// Distiller in float32 on the CPU: the slow obvious twin of the GPU's, and the trainer of machines
// without one. A window is one thread's work; gradients of windows are added in the order of the
// windows, so results depend neither on the number of threads nor on how windows are divided into
// micro-batches.
#pragma once
#include <memory>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/train/all_reduce.h"
#include "quant/train/distiller.h"
#include "quant/train/student.h"

namespace crumb::quant::train {

struct CpuOptions {
  int threads = 0;  // windows worked on at once, each with a gradient of its own; 0: all hardware
  // Called between blocks, by any thread, with the blocks of a step ("step") or of an evaluation
  // ("kept back") that are done; false makes step() and evaluate() throw Interrupted.
  ProgressFn progress;
  // The processes that work together: each takes its part of the windows (a multiple of their
  // number) and gets the sums. An interruption of one interrupts all. Must outlive the distiller.
  AllReduce* group = nullptr;
};

// `student_source` is the start checkpoint in full precision: its embedding (and head) are the
// student's, frozen. S: tokens of a window.
std::unique_ptr<Distiller> make_cpu_distiller(const models::SourceModel& teacher,
                                              const models::SourceModel& student_source,
                                              const Student& student, int64_t S,
                                              CpuOptions options = {});

}  // namespace crumb::quant::train
