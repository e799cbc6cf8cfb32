// Speed, memory and energy of a model, the third dimension of an evaluation.
#pragma once
#include <optional>
#include <string>

#include "apps/model_args.h"
#include "apps/signals.h"
#include "bench/eval/report.h"

namespace crumb::apps {

// Loads the model, measures pp512 and tg128 as `crumb bench` (medians of five) and the energy of
// the packages while it decodes. Call it first: the peak of memory is the process's.
eval::Efficiency measure_efficiency(ModelArgs model, bool quiet, Signals& signals);

}  // namespace crumb::apps
