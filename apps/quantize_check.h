// Whether what `crumb quantize` or `train` wrote is any good: divergence on text kept back from
// calibration.
#pragma once
#include <optional>
#include <string>

#include "apps/output.h"
#include "apps/quantize_args.h"
#include "bench/eval/windows.h"

namespace crumb::apps {

inline constexpr int64_t kHeldOut = 2;  // windows kept back from the calibration text

// A line on stderr that is no error.
void print_notice(const std::string& line);

// The divergence of given.output from the source on `held_out`; none if it was not asked for, or
// with a notice if it cannot be had: no text, or a source too large to check without being asked.
std::optional<eval::KlResult> check_quality(const QuantizeArgs& given, Context& context,
                                            const models::SourceModel& source,
                                            const quant::CalibrationWindows& held_out,
                                            bool calibrated);

// The divergence of the file at `path` from `source` on windows of ids, as the engine runs it.
eval::KlResult divergence(Context& context, const models::SourceModel& source,
                          const std::string& path, const eval::Windows& text,
                          const ModelArgs& model, bool quiet);
Json check_json(const eval::KlResult& check, double gate);
void show_check(const eval::KlResult& check);

// The largest divergence that passes: --gate, or the preset's, or infinity.
double gate_of(const QuantizeArgs& given);

// Moves the file away, so that nothing takes it for a good one, and throws Error(kGate).
[[noreturn]] void reject(const std::string& path, double divergence, double limit,
                         const std::string& hint);

}  // namespace crumb::apps
