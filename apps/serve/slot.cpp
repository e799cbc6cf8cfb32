#include "apps/serve/slot.h"

#include <algorithm>

namespace crumb::serve {
namespace {

constexpr int64_t kWorthCopying = 16;

int64_t common_prefix(std::span<const int32_t> held, std::span<const int32_t> prompt) {
  // The last token is read in any case: its logits are wanted.
  const std::size_t most = std::min(held.size(), prompt.size() - 1);
  const auto end = held.begin() + static_cast<std::ptrdiff_t>(most);
  return std::mismatch(held.begin(), end, prompt.begin()).first - held.begin();
}

}  // namespace

SlotChoice choose_slot(std::vector<Slot>& slots, std::span<const int32_t> prompt, bool cache) {
  Slot* oldest = nullptr;
  Slot* best = nullptr;
  int64_t common = 0;
  for (Slot& slot : slots) {
    if (!slot.active && (oldest == nullptr || slot.used < oldest->used)) oldest = &slot;
    if (!cache) continue;
    const int64_t here = common_prefix(slot.read(), prompt);
    const bool better = here > common || (here == common && here > 0 && best->active);
    if (better) {
      best = &slot;
      common = here;
    }
  }
  if (oldest == nullptr) return {};
  if (best == nullptr) return {oldest, nullptr, 0};
  if (!best->active && (best == oldest || 2 * common >= std::ssize(best->held)))
    return {best, best, common};
  if (common < kWorthCopying) return {oldest, nullptr, 0};
  return {oldest, best, common};
}

std::vector<int64_t> share_rows(const std::vector<int64_t>& left, int64_t rows) {
  std::vector<int64_t> share(left.size());
  while (rows > 0) {
    const auto hungry = static_cast<int64_t>(std::count_if(
        left.begin(), left.end(),
        [&, i = std::size_t{0}](int64_t tokens) mutable { return share[i++] < tokens; }));
    if (hungry == 0) break;
    const int64_t each = std::max<int64_t>(1, rows / hungry);
    for (std::size_t i = 0; i < left.size() && rows > 0; ++i) {
      const int64_t more = std::min({each, rows, left[i] - share[i]});
      share[i] += more;
      rows -= more;
    }
  }
  return share;
}

}  // namespace crumb::serve
