// How one matrix becomes codes, as data: what a recipe stores and a preset is a table of.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "quant/ldlq.h"
#include "quant/rtn.h"
#include "quant/scale_search.h"

namespace crumb::quant {

enum class Rounding : uint8_t { kNearest, kLdlq };

struct Method {
  Rounding rounding = Rounding::kNearest;
  int bits = 4;  // 2, 3, 4, 8; 32 keeps the matrix in float, all else is then unused
  std::vector<models::Band> bands;  // instead of bits, if not empty: of one matrix
  int64_t group = 64;               // 32, 64, 128, or 0 for one scale a row
  kernels::Grid grid = kernels::Grid::kSeq;
  ScaleRule rule = ScaleRule::kMse;
  models::Rotation rotation;  // of the inputs
  // LDLQ only.
  ColumnOrder order = ColumnOrder::kAscending;
  GroupScales scales = GroupScales::kStatic;  // kUpdated needs kAscending
  int greedy_passes = 0;
  int trials = 0, refits = 0;          // of scales: quant/scale_refit.h
  double damping = kDampingLadder[0];  // least rung of kDampingLadder
  bool operator==(const Method&) const = default;
};

// Whether the method reads second moments of the matrix's input.
bool needs_statistics(const Method& method);

// Throws Error(kUsage) naming the matrix and the value if a matrix [N, K] cannot be rounded like
// this: what validate(RtnOptions) refuses, and updated scales with another order than ascending.
void validate(const Method& method, int64_t N, int64_t K, const std::string& name);

// Names of recipes and of the command line: one table an enumeration.
template <class Value>
struct Named {
  std::string_view name;
  Value value;
};
inline constexpr Named<Rounding> kRoundings[] = {{"nearest", Rounding::kNearest},
                                                 {"ldlq", Rounding::kLdlq}};
inline constexpr Named<kernels::Grid> kGrids[] = {
    {"seq", kernels::Grid::kSeq}, {"lsq", kernels::Grid::kLsq}, {"asym", kernels::Grid::kAsym}};
inline constexpr Named<ScaleRule> kScaleRules[] = {
    {"absmax", ScaleRule::kAbsMax}, {"mse", ScaleRule::kMse}, {"weighted", ScaleRule::kWeighted}};
inline constexpr Named<ColumnOrder> kColumnOrders[] = {{"ascending", ColumnOrder::kAscending},
                                                       {"act", ColumnOrder::kActOrder},
                                                       {"descending", ColumnOrder::kDescending}};
inline constexpr Named<GroupScales> kGroupScales[] = {{"static", GroupScales::kStatic},
                                                      {"updated", GroupScales::kUpdated}};

// The name of a value in its table; every value has one.
template <class Value, std::size_t n>
std::string_view name_of(const Named<Value> (&table)[n], Value value) {
  for (const auto& entry : table)
    if (entry.value == value) return entry.name;
  return "unknown";
}
// The value called `name`, or null.
template <class Value, std::size_t n>
const Value* value_of(const Named<Value> (&table)[n], std::string_view name) {
  for (const auto& entry : table)
    if (entry.name == name) return &entry.value;
  return nullptr;
}

}  // namespace crumb::quant
