#include "quant/qvlm/partition.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace crumb::quant::qvlm {
namespace {

int64_t power(int64_t base, int64_t exponent) {
  int64_t value = 1;
  for (int64_t i = 0; i < exponent; ++i) value *= base;
  return value;
}

int64_t evaluations(int64_t length, int64_t candidates) {
  return length < 2 ? 0 : power(candidates, length);
}

}  // namespace

int64_t joint_evaluations(const Partition& partition, int64_t candidates) {
  int64_t sum = 0;
  for (const int64_t length : partition) sum += evaluations(length, candidates);
  return sum;
}

Partition fixed_blocks(int64_t sites, int64_t length) {
  Partition blocks(static_cast<std::size_t>(sites / length), length);
  if (sites % length != 0) blocks.push_back(sites % length);
  return blocks;
}

Partition blocks_by_mean(std::span<const double> entropy, int64_t most) {
  const double mean = std::accumulate(entropy.begin(), entropy.end(), 0.0) /
                      static_cast<double>(std::max<std::size_t>(entropy.size(), 1));
  Partition blocks;
  for (std::size_t site = 0; site < entropy.size(); ++site) {
    if (site > 0 && entropy[site] >= mean && blocks.back() < most)
      ++blocks.back();
    else
      blocks.push_back(1);
  }
  return blocks;
}

Partition cheapest_blocks(std::span<const double> entropy, int64_t most, int64_t candidates,
                          double price) {
  const auto n = std::ssize(entropy);
  // Of the sites from i on: least cost, and the first block's length.
  std::vector<double> cost(static_cast<std::size_t>(n + 1));
  std::vector<int64_t> first(static_cast<std::size_t>(n + 1));
  for (int64_t i = n - 1; i >= 0; --i) {
    double least = std::numeric_limits<double>::infinity();
    for (int64_t length = 1; length <= std::min(most, n - i); ++length) {
      const auto next = static_cast<std::size_t>(i + length);
      const double all = price * static_cast<double>(evaluations(length, candidates)) +
                         (i + length < n ? entropy[next] : 0) + cost[next];
      if (all > least) continue;
      least = all;
      first[static_cast<std::size_t>(i)] = length;
    }
    cost[static_cast<std::size_t>(i)] = least;
  }
  Partition blocks;
  for (int64_t i = 0; i < n; i += blocks.back())
    blocks.push_back(first[static_cast<std::size_t>(i)]);
  return blocks;
}

Partition blocks_within(std::span<const double> entropy, int64_t most, int64_t candidates,
                        int64_t budget) {
  double low = 0, high = 1;  // at 1 an evaluation costs as much as the dearest cut
  const auto at = [&](double price) { return cheapest_blocks(entropy, most, candidates, price); };
  if (Partition free = at(0); joint_evaluations(free, candidates) <= budget) return free;
  while (joint_evaluations(at(high), candidates) > budget && high < 1e9) high *= 2;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (joint_evaluations(at(middle), candidates) > budget ? low : high) = middle;
  }
  return at(high);
}

}  // namespace crumb::quant::qvlm
