#include "engine/json_numbers.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace crumb::json {
namespace {

constexpr int kFractionDigits = 15;

// Nothing, or a point and digits up to `last`.
int32_t fraction(Builder& b, int32_t next, char last = '9') {
  int32_t digits = next;
  for (int i = 1; i < kFractionDigits; ++i) digits = b.split(next, b.range('0', last, digits));
  return b.split(next, b.byte('.', b.range('0', last, digits)));
}

// A point and digits that are not all zeros.
int32_t some_fraction(Builder& b, int32_t next) {
  int32_t rest = next;                      // behind a digit that is no zero
  int32_t zeros = b.range('1', '9', next);  // the last digit there may be
  for (int i = 1; i < kFractionDigits; ++i) {
    rest = b.split(next, b.range('0', '9', rest));
    zeros = b.split(b.range('1', '9', rest), b.byte('0', zeros));
  }
  return b.byte('.', zeros);
}

// Natural numbers of exactly `digits` digits, low..high, that `step` divides, digit by digit from
// the first: `rest` is what the digits so far leave when divided.
class Multiples {
 public:
  Multiples(Builder& b, const std::string& low, const std::string& high, int64_t step, int32_t next)
      : b_(b), low_(low), high_(high), step_(step), next_(next) {}

  // -1: there is no way on.
  int32_t from(std::size_t digit, int64_t rest, bool at_low, bool at_high) {
    if (digit == low_.size()) return rest == 0 ? next_ : -1;
    // Numbers on a bound are few; all others are shared.
    const auto key = std::tuple(digit, rest, at_low, at_high);
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    std::map<int32_t, ByteSet> ways;
    const char first = at_low ? low_[digit] : '0', last = at_high ? high_[digit] : '9';
    for (char c = first; c <= last; ++c) {
      const int32_t on = from(digit + 1, (rest * 10 + (c - '0')) % step_, at_low && c == first,
                              at_high && c == last);
      if (on >= 0) ways[on].set(static_cast<std::size_t>(c));
    }
    std::vector<int32_t> places;
    for (const auto& [on, digits] : ways) places.push_back(b_.bytes(digits, on));
    return known_[key] = places.empty() ? -1 : b_.any_of(places);
  }

 private:
  Builder& b_;
  const std::string &low_, &high_;
  int64_t step_;
  int32_t next_;
  std::map<std::tuple<std::size_t, int64_t, bool, bool>, int32_t> known_;
};

// Positive ones, low..high.
void positive_multiples(Builder& b, int64_t low, int64_t high, int64_t step, int32_t next,
                        std::vector<int32_t>& ways) {
  for (int64_t first = 1; first <= high && first <= kMostDigits; first *= 10) {
    const int64_t from = std::max(low, first), to = std::min(high, first * 10 - 1);
    if (from > to) continue;
    const std::string a = std::to_string(from), z = std::to_string(to);
    if (const int32_t way = Multiples(b, a, z, step, next).from(0, 0, true, true); way >= 0)
      ways.push_back(way);
  }
}

int64_t up(int64_t x, int64_t by) { return x / by + (x % by > 0 ? 1 : 0); }
int64_t down(int64_t x, int64_t by) { return x / by - (x % by < 0 ? 1 : 0); }

}  // namespace

int32_t any_number(Builder& b, int32_t next) {
  const int32_t digit = b.range('0', '9', next);
  const int32_t power = b.split(digit, b.range('0', '9', digit));  // no more than e99
  ByteSet e, sign;
  e.set('e').set('E');
  sign.set('+').set('-');
  const int32_t exponent = b.split(next, b.bytes(e, b.split(power, b.bytes(sign, power))));
  const int32_t whole = b.integers(0, kMostDigits, fraction(b, exponent));
  return b.split(whole, b.byte('-', whole));
}

// Whole parts strictly within the bounds take any fraction; the bounds themselves, as far as they
// belong to the range, none but zeros; and what lies just inside an open bound, a fraction.
int32_t real_between(Builder& b, const RealBounds& bounds, int32_t next) {
  const auto [low, high, open_low, open_high] = bounds;
  if (low > high || (low == high && (open_low || open_high))) return -1;
  std::vector<int32_t> ways;
  const int32_t any_part = fraction(b, next);
  const int32_t no_part = fraction(b, next, '0');
  if (!open_low) ways.push_back(b.integers(low, low, no_part));
  if (!open_high && high != low) ways.push_back(b.integers(high, high, no_part));
  if (low == high) return b.any_of(ways);
  const int32_t some_part = some_fraction(b, next);
  const auto parts = [&](int64_t first, int64_t last, bool open_first, int32_t sign) {
    // Of magnitudes first.. up to below last.
    std::vector<int32_t> found;
    if (open_first) found.push_back(b.integers(first, first, some_part));
    if (first + (open_first ? 1 : 0) <= last - 1)
      found.push_back(b.integers(first + (open_first ? 1 : 0), last - 1, any_part));
    if (found.empty()) return;
    const int32_t all = b.any_of(found);
    ways.push_back(sign == 0 ? all : b.byte('-', all));
  };
  if (high > 0) parts(std::max<int64_t>(low, 0), high, low >= 0 && open_low, 0);
  if (low < 0) parts(std::max<int64_t>(-high, 0), -low, high <= 0 && open_high, 1);
  return b.any_of(ways);
}

int32_t multiples(Builder& b, int64_t low, int64_t high, int64_t step, int32_t next) {
  if (low > high) return -1;
  std::vector<int32_t> ways;
  if (low <= 0 && high >= 0) ways.push_back(b.byte('0', next));
  // A power of ten in the step is zeros at the end.
  int64_t ten = 1;
  int32_t end = next;
  for (; step % 10 == 0; step /= 10, ten *= 10) end = b.byte('0', end);
  if (high > 0)
    positive_multiples(b, std::max<int64_t>(up(low, ten), 1), down(high, ten), step, end, ways);
  if (low < 0) {
    std::vector<int32_t> negative;
    positive_multiples(b, std::max<int64_t>(up(-high, ten), 1), down(-low, ten), step, end,
                       negative);
    if (!negative.empty()) ways.push_back(b.byte('-', b.any_of(negative)));
  }
  return ways.empty() ? -1 : b.any_of(ways);
}

}  // namespace crumb::json
