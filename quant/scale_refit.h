// Scales that know of the compensation: LDLQ rounds not the weights but weights plus what earlier
// columns have lost, which spread wider, so scales fitted to the weights are a little off.
#pragma once
#include <cstdint>
#include <span>

#include "quant/ldlq.h"
#include "quant/linalg.h"
#include "quant/rounded.h"

namespace crumb::quant {

// The best scale s of every group for the codes it has, one group after the other with the others
// as they are: least squares in tr(E H E^T). Zero points stay. H [K, K] is not damped and in the
// order of the columns of w [N, K]. Never raises a row's loss. Independent of the number of
// threads.
void refit_scales(std::span<const float> w, std::span<const double> H, Rounded* rounded,
                  int threads);

struct RefitOptions {
  int trials = 0;         // on each side: scales of a row times exp(trial * kTrialStep), LDLQ again
  int refits = 0;         // refit_scales and LDLQ again; refit_scales once more at the end
  int greedy_passes = 0;  // of every LDLQ
};
inline constexpr double kTrialStep = 0.07;

// From the result of ldlq(): of all a row has been through, what loses least in (E H E^T)_rr.
Rounded improve_scales(std::span<const float> w, std::span<const double> H, const Factor& factor,
                       Rounded start, const RefitOptions& options, int threads);

}  // namespace crumb::quant
