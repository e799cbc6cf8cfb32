// Reports of benchmarks as text.
#pragma once
#include <string>
#include <vector>

#include "bench/eval/report.h"

namespace crumb::apps {

// Markdown: model, scores with floors, what changed against the reference, bias scores, efficiency,
// what was not scored.
std::string report_text(const eval::Report& report);

// A metric's value: shares in percent, perplexities, nats, lengths and bias scores as they are.
std::string metric_value(const std::string& name, double value);

// Cells of a difference: metric, difference, won, lost, p, kappa, same result, same choice or text,
// NLL rise.
std::vector<std::string> paired_cells(const eval::ReferenceResult& result);

}  // namespace crumb::apps
