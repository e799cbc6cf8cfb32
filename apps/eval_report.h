// Reports of benchmarks as text.
#pragma once
#include <string>

#include "bench/eval/report.h"

namespace crumb::apps {

// Markdown: model, scores with floors, what changed against the reference, bias scores, efficiency,
// what was not scored.
std::string report_text(const eval::Report& report);

}  // namespace crumb::apps
