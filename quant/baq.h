// BAQ (arXiv:2506.05664): widths from a loss model, closed form.
//
// A unit u of n_u weights at R bits a weight loses c_u 2^(-2 R). The least sum of losses at a mean
// of R bits a weight has, by Lagrange, the same loss a weight in every unit (equal-loss structure):
//   R_u = R + 1/2 (log2(c_u / n_u) - mean log2(c / n)),   means weighted by n.
// With equal n this is the published R + 1/2 log2(c_u / geomean(c)). Against R bits everywhere the
// loss falls by the factor gain = geomean(c / n) / mean(c / n) <= 1.
//
// Deviations: the authors' code rounds the number of levels (3 levels count as 1.585 bits), which
// no packed format stores; here the closed form is theory and control, and the widths of files come
// from the measured losses by quant/allocation.h.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace crumb::quant {

struct BaqUnit {
  double c = 0;        // loss * 2^(2 R), > 0
  double weights = 0;  // > 0
};

// Real bits; they may fall below 0 or rise without limit. Empty for no units.
std::vector<double> baq_bits(std::span<const BaqUnit> units, double mean_bits);
double baq_gain(std::span<const BaqUnit> units);

}  // namespace crumb::quant
