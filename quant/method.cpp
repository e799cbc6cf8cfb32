#include "quant/method.h"

#include <string>

#include "models/errors.h"

namespace crumb::quant {

bool needs_statistics(const Method& method) {
  if (method.bits == 32) return false;
  return method.rounding != Rounding::kNearest || method.rule == ScaleRule::kWeighted;
}

void validate(const Method& method, int64_t N, int64_t K, const std::string& name) {
  if (method.bits == 32) return;
  RtnOptions stored;
  stored.bits = method.bits;
  stored.group = method.group;
  stored.grid = method.grid;
  stored.rotation = method.rotation;
  validate(stored, N, K, name);
  if (method.rounding == Rounding::kLdlq && method.scales == GroupScales::kUpdated &&
      method.order != ColumnOrder::kAscending)
    throw Error(ExitCode::kUsage,
                "updated scales need their group's columns together (" + name +
                    ": expected order ascending, found " +
                    std::string(name_of(kColumnOrders, method.order)) + ")",
                "take static scales or the ascending order");
}

}  // namespace crumb::quant
