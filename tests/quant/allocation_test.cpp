#include "quant/allocation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "models/errors.h"
#include "quant/baq.h"

namespace crumb::quant {
namespace {

struct Best {
  double loss = std::numeric_limits<double>::infinity();
  int64_t bytes = 0;
};

// Every combination.
void try_all(std::span<const Unit> units, int64_t budget, int64_t bytes, double loss, Best* best) {
  if (bytes > budget) return;
  if (units.empty()) {
    if (std::pair(loss, bytes) < std::pair(best->loss, best->bytes)) *best = {loss, bytes};
    return;
  }
  for (const Choice& choice : units.front().choices)
    try_all(units.subspan(1), budget, bytes + choice.bytes, loss + choice.loss, best);
}

// Losses that fall about fourfold a bit, or anything at all.
std::vector<Unit> random_units(int count, bool lawless, std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<Unit> units;
  for (int u = 0; u < count; ++u) {
    Unit unit;
    const auto size = static_cast<int64_t>(1 + 5 * uniform(random));
    const double c = std::exp2(6 * uniform(random));
    for (const int bits : {2, 3, 4, 8})
      unit.choices.push_back(
          {lawless ? static_cast<int64_t>(9 * uniform(random)) : 64 * size * bits,
           lawless ? std::floor(9 * uniform(random)) : c * std::exp2(-2 * bits) * uniform(random)});
    units.push_back(unit);
  }
  return units;
}

void check_sums(std::span<const Unit> units, const Allocation& found) {
  int64_t bytes = 0;
  double loss = 0;
  ASSERT_EQ(found.choice.size(), units.size());
  for (std::size_t u = 0; u < units.size(); ++u) {
    const Choice& choice = units[u].choices.at(static_cast<std::size_t>(found.choice[u]));
    bytes += choice.bytes;
    loss += choice.loss;
  }
  EXPECT_EQ(found.bytes, bytes);
  EXPECT_DOUBLE_EQ(found.loss, loss);
  EXPECT_LE(found.bound, found.loss * (1 + 1e-9) + 1e-12);
}

TEST(Allocation, IsTheBestOfAllCombinations) {
  std::mt19937_64 random(3);
  int solved = 0;
  for (int round = 0; round < 600; ++round) {
    const bool lawless = round % 3 == 0;
    const auto units = random_units(1 + round % 7, lawless, random);
    int64_t least = 0;
    int64_t most = 0;
    for (const Unit& unit : units) {
      int64_t low = unit.choices[0].bytes;
      int64_t high = low;
      for (const Choice& choice : unit.choices) {
        low = std::min(low, choice.bytes);
        high = std::max(high, choice.bytes);
      }
      least += low;
      most += high;
    }
    const int64_t budget =
        least + static_cast<int64_t>(static_cast<double>(most - least) *
                                     std::uniform_real_distribution<double>(0, 1.1)(random));
    Best best;
    try_all(units, budget, 0, 0, &best);
    const Allocation found = allocate(units, budget);
    check_sums(units, found);
    ASSERT_LE(found.bytes, budget);
    ASSERT_NEAR(found.loss, best.loss, 1e-12 * (1 + best.loss)) << "round " << round;
    if (lawless) {  // losses are whole numbers: many ties
      ASSERT_EQ(found.bytes, best.bytes);
    }
    ++solved;
  }
  EXPECT_EQ(solved, 600);
}

TEST(Allocation, ManyUnitsCloseToTheBoundAndTheBudget) {
  std::mt19937_64 random(5);
  const auto units = random_units(5000, false, random);
  int64_t three = 0;
  for (const Unit& unit : units) three += unit.choices[1].bytes;
  const Allocation found = allocate(units, three);
  check_sums(units, found);
  EXPECT_LE(found.bytes, three);
  EXPECT_GT(static_cast<double>(found.bytes), 0.999 * static_cast<double>(three));
  EXPECT_LT(found.loss, found.bound * 1.0001);
}

TEST(Allocation, UnitsThatAreAllAlikeAreNoTrouble) {
  const std::vector<Unit> units(2000, {{{128, 16}, {192, 4}, {256, 1}, {512, 0}}});
  const Allocation found = allocate(units, 2000 * 160);
  check_sums(units, found);
  EXPECT_EQ(found.bytes, 2000 * 160);
  EXPECT_DOUBLE_EQ(found.loss, 1000 * 16 + 1000 * 4);
}

TEST(Allocation, EnoughBytesGiveEveryUnitItsBest) {
  const std::vector<Unit> units = {{{{8, 1}, {2, 5}, {4, 0}}}, {{{3, 2}}}};
  const Allocation found = allocate(units, 1000);
  EXPECT_EQ(found.choice, (std::vector<int>{2, 0}));
  EXPECT_EQ(found.bytes, 7);
  EXPECT_EQ(found.loss, found.bound);
}

TEST(Allocation, RefusesWhatCannotBe) {
  const std::vector<Unit> units = {{{{8, 1}, {4, 5}}}, {{{3, 2}}}};
  EXPECT_EQ(allocate(units, 7).bytes, 7);
  try {
    allocate(units, 6);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("at least 7"), std::string::npos);
  }
  EXPECT_THROW(allocate(std::vector<Unit>(1), 6), std::invalid_argument);
  EXPECT_THROW(allocate(std::vector<Unit>{{{{1, NAN}}}}, 6), std::invalid_argument);
  EXPECT_THROW(allocate(std::vector<Unit>{{{{-1, 0}}}}, 6), std::invalid_argument);
}

std::vector<BaqUnit> random_baq(bool equal) {
  std::mt19937_64 random(9);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<BaqUnit> units;
  for (int u = 0; u < 100; ++u)
    units.push_back({std::exp2(12 * uniform(random)), equal ? 64 : 1 + 99 * uniform(random)});
  return units;
}

TEST(Baq, ClosedFormMakesAllLossesEqual) {
  for (const bool equal : {true, false}) {
    const auto units = random_baq(equal);
    const auto bits = baq_bits(units, 3);
    double sum = 0;
    double weights = 0;
    double loss = 0;
    double uniform = 0;
    const double first = units[0].c * std::exp2(-2 * bits[0]) / units[0].weights;
    for (std::size_t u = 0; u < units.size(); ++u) {
      const double own = units[u].c * std::exp2(-2 * bits[u]);
      EXPECT_NEAR(own / units[u].weights / first, 1, 1e-9);
      sum += bits[u] * units[u].weights;
      weights += units[u].weights;
      loss += own;
      uniform += units[u].c * std::exp2(-2.0 * 3);
    }
    EXPECT_NEAR(sum / weights, 3, 1e-12);
    EXPECT_NEAR(loss / uniform, baq_gain(units), 1e-9);
    EXPECT_LT(loss, 0.5 * uniform);
  }
}

TEST(Baq, NoOtherRealBitsAreBetter) {
  const auto units = random_baq(false);
  const auto bits = baq_bits(units, 3);
  const auto loss = [&](const std::vector<double>& at) {
    double sum = 0;
    for (std::size_t u = 0; u < units.size(); ++u) sum += units[u].c * std::exp2(-2 * at[u]);
    return sum;
  };
  for (std::size_t u = 1; u < units.size(); ++u) {
    auto moved = bits;  // a little from one unit to another, the mean stays
    moved[u] += 0.01 / units[u].weights;
    moved[0] -= 0.01 / units[0].weights;
    EXPECT_GT(loss(moved), loss(bits));
  }
}

// With widths as fine as the loss model, the exact solution comes to the closed form's loss.
TEST(Baq, FineWidthsComeToTheClosedForm) {
  const auto units = random_baq(true);
  const auto bits = baq_bits(units, 8);  // all above 0
  double closed = 0;
  std::vector<Unit> choices;
  for (std::size_t u = 0; u < units.size(); ++u) {
    closed += units[u].c * std::exp2(-2 * bits[u]);
    Unit unit;
    for (int level = 0; level < 200; ++level)
      unit.choices.push_back({level, units[u].c * std::exp2(-2 * 0.1 * level)});
    choices.push_back(unit);
  }
  const Allocation found = allocate(choices, 80 * 100);
  EXPECT_GE(found.loss, closed * (1 - 1e-9));
  EXPECT_LT(found.loss, closed * 1.002);
}

TEST(Baq, OneUnitOrNone) {
  EXPECT_TRUE(baq_bits({}, 3).empty());
  EXPECT_EQ(baq_gain({}), 1);
  const std::vector<BaqUnit> one = {{5, 7}};
  EXPECT_DOUBLE_EQ(baq_bits(one, 3)[0], 3);
  EXPECT_DOUBLE_EQ(baq_gain(one), 1);
}

}  // namespace
}  // namespace crumb::quant
