// The chain of sites cut into blocks that are searched jointly, one block after another.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace crumb::quant::qvlm {

// Lengths of blocks, front to back; they sum to the number of sites.
using Partition = std::vector<int64_t>;

// Evaluations of the joint search: c^length for each block of two or more sites, c candidates a
// site. Blocks of one keep what the search site by site has found.
int64_t joint_evaluations(const Partition& partition, int64_t candidates);

Partition fixed_blocks(int64_t sites, int64_t length);
// The released rule: a site joins the block before it while its entropy is the mean's or more, to
// at most `most` sites.
Partition blocks_by_mean(std::span<const double> entropy, int64_t most);
// Of all partitions into blocks of 1 to `most` sites the one with the least
//   sum over cuts of entropy[the site behind the cut] + price * joint_evaluations,
// by dynamic programming; of equals the one with the longer first block.
Partition cheapest_blocks(std::span<const double> entropy, int64_t most, int64_t candidates,
                          double price);
// cheapest_blocks() at the lowest price (by bisection) that costs at most `budget` evaluations.
Partition blocks_within(std::span<const double> entropy, int64_t most, int64_t candidates,
                        int64_t budget);

}  // namespace crumb::quant::qvlm
