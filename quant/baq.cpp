#include "quant/baq.h"

#include <cassert>
#include <cmath>

namespace crumb::quant {
namespace {

double mean_log2(std::span<const BaqUnit> units) {
  double sum = 0;
  double weights = 0;
  for (const BaqUnit& unit : units) {
    assert(unit.c > 0 && unit.weights > 0);
    sum += unit.weights * std::log2(unit.c / unit.weights);
    weights += unit.weights;
  }
  return sum / weights;
}

}  // namespace

std::vector<double> baq_bits(std::span<const BaqUnit> units, double mean_bits) {
  if (units.empty()) return {};
  const double mean = mean_log2(units);
  std::vector<double> bits;
  for (const BaqUnit& unit : units)
    bits.push_back(mean_bits + 0.5 * (std::log2(unit.c / unit.weights) - mean));
  return bits;
}

double baq_gain(std::span<const BaqUnit> units) {
  if (units.empty()) return 1;
  double c = 0;
  double weights = 0;
  for (const BaqUnit& unit : units) {
    c += unit.c;
    weights += unit.weights;
  }
  return std::exp2(mean_log2(units)) * weights / c;
}

}  // namespace crumb::quant
