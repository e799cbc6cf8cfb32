#include "quant/qvlm/entropy.h"

#include <cmath>
#include <cstdlib>
#include <vector>

namespace crumb::quant::qvlm {

// -sum p log p = log s - (1 / s) sum a log a, a = |code|, s = sum a.
double activation_entropy(std::span<const int8_t> codes, int64_t K) {
  const auto T = std::ssize(codes) / K;
  if (T < 2) return 0;
  const auto columns = static_cast<std::size_t>(K);
  std::vector<double> sums(columns), logs(columns);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const double a = std::abs(static_cast<int>(codes[i]));
    if (a == 0) continue;
    sums[i % columns] += a;
    logs[i % columns] += a * std::log(a);
  }
  double total = 0;
  int64_t live = 0;
  for (std::size_t c = 0; c < columns; ++c) {
    if (sums[c] == 0) continue;
    total += std::log(sums[c]) - logs[c] / sums[c];
    ++live;
  }
  return live == 0 ? 0 : total / static_cast<double>(live) / std::log(static_cast<double>(T));
}

}  // namespace crumb::quant::qvlm
