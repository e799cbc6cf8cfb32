#include "quant/allocation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "models/errors.h"

namespace crumb::quant {
namespace {

constexpr double kRounding = 1e-12;  // of the sums: what their rounding may hide

// One step down a unit's lower convex hull.
struct Step {
  int32_t unit = 0;
  int to = 0;  // choice
  int64_t bytes = 0;
  double slope = 0;  // loss saved by a byte
};

const Choice& at(std::span<const Unit> units, std::size_t unit, int choice) {
  return units[unit].choices[static_cast<std::size_t>(choice)];
}

void validate(std::span<const Unit> units) {
  for (const Unit& unit : units) {
    if (unit.choices.empty()) throw std::invalid_argument("allocation: a unit without choices");
    for (const Choice& choice : unit.choices)
      if (choice.bytes < 0 || !std::isfinite(choice.loss))
        throw std::invalid_argument("allocation: negative bytes, or a loss that is not finite");
  }
}

// Choices by bytes that no other beats in both, smallest first: losses fall strictly.
std::vector<int> undominated(const Unit& unit) {
  std::vector<int> order(unit.choices.size());
  std::iota(order.begin(), order.end(), 0);
  const auto choice = [&](int i) -> const Choice& {
    return unit.choices[static_cast<std::size_t>(i)];
  };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::pair(choice(a).bytes, choice(a).loss) < std::pair(choice(b).bytes, choice(b).loss);
  });
  std::vector<int> kept;
  for (const int i : order)
    if (kept.empty() || choice(i).loss < choice(kept.back()).loss) kept.push_back(i);
  return kept;
}

// Appends the steps of the unit's hull, from its smallest choice on; slopes fall strictly.
void add_steps(const Unit& unit, int32_t index, const std::vector<int>& kept,
               std::vector<Step>* steps) {
  const auto choice = [&](int i) -> const Choice& {
    return unit.choices[static_cast<std::size_t>(i)];
  };
  for (std::size_t from = 0; from + 1 < kept.size();) {
    std::size_t best = from + 1;
    double best_slope = -1;
    const Choice& a = choice(kept[from]);
    for (std::size_t to = from + 1; to < kept.size(); ++to) {
      const Choice& b = choice(kept[to]);
      const double slope = (a.loss - b.loss) / static_cast<double>(b.bytes - a.bytes);
      if (slope >= best_slope) {
        best = to;
        best_slope = slope;
      }
    }
    steps->push_back({index, kept[best], choice(kept[best]).bytes - a.bytes, best_slope});
    from = best;
  }
}

struct Greedy {
  std::vector<int> choice;
  int64_t bytes = 0;
  double lambda = 0;
};

// Steepest steps first while they fit; lambda is the slope of the first that does not.
Greedy walk(std::span<const Unit> units, const std::vector<std::vector<int>>& kept,
            int64_t budget) {
  Greedy greedy;
  std::vector<Step> steps;
  for (std::size_t u = 0; u < units.size(); ++u) {
    greedy.choice.push_back(kept[u].front());
    greedy.bytes += at(units, u, kept[u].front()).bytes;
    add_steps(units[u], static_cast<int32_t>(u), kept[u], &steps);
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& a, const Step& b) { return a.slope > b.slope; });
  std::vector<char> stopped(units.size());  // later steps of a unit start where an earlier one ends
  for (const Step& step : steps) {
    const auto u = static_cast<std::size_t>(step.unit);
    if (stopped[u]) continue;
    if (greedy.bytes + step.bytes > budget) {
      if (greedy.lambda == 0) greedy.lambda = step.slope;
      stopped[u] = 1;
      continue;
    }
    greedy.bytes += step.bytes;
    greedy.choice[u] = step.to;
  }
  return greedy;
}

// Loss and bytes.
std::pair<double, int64_t> cost_of(std::span<const Unit> units, const std::vector<int>& choice) {
  std::pair<double, int64_t> cost;
  for (std::size_t u = 0; u < units.size(); ++u) {
    cost.first += at(units, u, choice[u]).loss;
    cost.second += at(units, u, choice[u]).bytes;
  }
  return cost;
}

// A unit with the choices that can still be in a better solution.
struct OpenChoice {
  Choice choice;
  double excess = 0;  // L_u(c) - min L_u >= 0
  int index = 0;      // into the unit's choices
};
struct OpenUnit {
  std::size_t unit = 0;
  std::vector<OpenChoice> choices;
  int64_t least = 0, most = 0;  // bytes
};

struct Problem {
  std::vector<OpenUnit> open;
  int64_t budget = 0;  // of the open units
  double lambda = 0;
  double gap = 0;
};

struct State {
  int64_t bytes = 0;
  double loss = 0, excess = 0;
  int32_t parent = 0;  // in the stage before
  int32_t choice = 0;  // into OpenUnit::choices
};
using Stage = std::vector<State>;

// Sorted by bytes and loss, without the states that another beats in both.
void keep_undominated(Stage* stage) {
  std::stable_sort(stage->begin(), stage->end(), [](const State& a, const State& b) {
    return std::pair(a.bytes, a.loss) < std::pair(b.bytes, b.loss);
  });
  std::size_t kept = 0;
  for (const State& state : *stage)
    if (kept == 0 || state.loss < (*stage)[kept - 1].loss) (*stage)[kept++] = state;
  stage->resize(kept);
}

// Bytes of the units not chosen for yet.
struct Rest {
  int64_t least = 0, most = 0;
};

Stage extend(const Problem& problem, const Stage& last, const OpenUnit& unit, const Rest& rest) {
  Stage next;
  for (std::size_t s = 0; s < last.size(); ++s)
    for (std::size_t c = 0; c < unit.choices.size(); ++c) {
      const OpenChoice& choice = unit.choices[c];
      const State state = {last[s].bytes + choice.choice.bytes, last[s].loss + choice.choice.loss,
                           last[s].excess + choice.excess, static_cast<int32_t>(s),
                           static_cast<int32_t>(c)};
      if (state.bytes + rest.least > problem.budget) continue;
      const auto unused =
          static_cast<double>(std::max<int64_t>(0, problem.budget - state.bytes - rest.most));
      if (state.excess + problem.lambda * unused > problem.gap) continue;
      next.push_back(state);
    }
  keep_undominated(&next);
  return next;
}

// Replaces the choices of the open units by the best ones, if any state gets to the end.
void search(const Problem& problem, Allocation* result) {
  Rest rest;
  for (const OpenUnit& unit : problem.open) {
    rest.least += unit.least;
    rest.most += unit.most;
  }
  std::vector<Stage> stages = {{State{}}};
  for (const OpenUnit& unit : problem.open) {
    rest.least -= unit.least;
    rest.most -= unit.most;
    stages.push_back(extend(problem, stages.back(), unit, rest));
    result->states += std::ssize(stages.back());
  }
  if (stages.back().empty()) return;
  // The last undominated state has the least loss.
  auto at_state = static_cast<int32_t>(stages.back().size() - 1);
  for (std::size_t i = problem.open.size(); i-- > 0;) {
    const State& state = stages[i + 1][static_cast<std::size_t>(at_state)];
    const OpenUnit& unit = problem.open[i];
    result->choice[unit.unit] = unit.choices[static_cast<std::size_t>(state.choice)].index;
    at_state = state.parent;
  }
}

// Fixes the units with one choice left; the others stay open.
Problem reduce(std::span<const Unit> units, const std::vector<std::vector<int>>& kept,
               const Greedy& greedy, int64_t budget, Allocation* result) {
  Problem problem;
  problem.budget = budget;
  problem.lambda = greedy.lambda;
  const auto cost = [&](std::size_t u, int c) {
    const Choice& choice = at(units, u, c);
    return choice.loss + greedy.lambda * static_cast<double>(choice.bytes);
  };
  std::vector<double> least(units.size());
  result->bound = -greedy.lambda * static_cast<double>(budget);
  for (std::size_t u = 0; u < units.size(); ++u) {
    least[u] = cost(u, kept[u].front());
    for (const int c : kept[u]) least[u] = std::min(least[u], cost(u, c));
    result->bound += least[u];
  }
  const double scale = std::abs(result->bound) + std::abs(result->loss) +
                       greedy.lambda * static_cast<double>(budget);
  problem.gap = result->loss - result->bound + kRounding * scale;
  for (std::size_t u = 0; u < units.size(); ++u) {
    OpenUnit open;
    open.unit = u;
    for (const int c : kept[u])
      if (cost(u, c) - least[u] <= problem.gap)
        open.choices.push_back({at(units, u, c), cost(u, c) - least[u], c});
    open.least = open.choices.front().choice.bytes;
    open.most = open.choices.back().choice.bytes;
    if (open.choices.size() == 1) {
      problem.budget -= open.least;
      result->choice[u] = open.choices.front().index;
    } else {
      problem.open.push_back(std::move(open));
    }
  }
  return problem;
}

}  // namespace

Allocation allocate(std::span<const Unit> units, int64_t budget) {
  validate(units);
  std::vector<std::vector<int>> kept;
  int64_t smallest = 0;
  for (const Unit& unit : units) {
    kept.push_back(undominated(unit));
    smallest += unit.choices[static_cast<std::size_t>(kept.back().front())].bytes;
  }
  if (smallest > budget)
    throw Error(ExitCode::kUsage, "budget too small (allocation: expected at least " +
                                      std::to_string(smallest) + " bytes, found " +
                                      std::to_string(budget) + ")");
  const Greedy greedy = walk(units, kept, budget);
  Allocation result;
  result.choice = greedy.choice;
  result.loss = cost_of(units, greedy.choice).first;
  // Without a step that did not fit, every unit has its best choice.
  if (greedy.lambda > 0) {
    Allocation better = result;
    const Problem problem = reduce(units, kept, greedy, budget, &better);
    search(problem, &better);
    if (cost_of(units, better.choice) < cost_of(units, result.choice))
      result.choice = better.choice;
    result.bound = better.bound;
    result.states = better.states;
  }
  std::tie(result.loss, result.bytes) = cost_of(units, result.choice);
  if (greedy.lambda == 0) result.bound = result.loss;
  return result;
}

}  // namespace crumb::quant
