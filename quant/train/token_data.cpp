#include "quant/train/token_data.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "models/errors.h"
#include "quant/bytes.h"
#include "quant/train/mix.h"

namespace crumb::quant::train {

void TokenData::add_file(const std::string& path) {
  Part part{models::MappedFile(path), {}, windows_};
  const auto bytes = std::ssize(part.file->bytes());
  if (bytes % 2 != 0 || bytes / 2 < S_)
    throw FormatError("not a token file (" + path + ": expected at least " + std::to_string(S_) +
                          " ids of two bytes, found " + std::to_string(bytes) + " bytes)",
                      "text and chats are given as \"text\", not as \"data\"");
  windows_ += bytes / 2 / S_;
  parts_.push_back(std::move(part));
}

void TokenData::add(std::vector<int32_t> ids) {
  const int64_t more = std::ssize(ids) / S_;
  if (more == 0) return;
  parts_.push_back({std::nullopt, std::move(ids), windows_});
  windows_ += more;
}

std::string TokenData::hash() const {
  std::vector<int32_t> ids(static_cast<std::size_t>(S_));
  uint64_t value = 0;
  for (int64_t w = 0; w < windows_; ++w) {
    read(w, ids);
    value = hash_of(ids.data(), ids.size() * sizeof(int32_t), value);
  }
  return hex(value);
}

void TokenData::read(int64_t window, std::span<int32_t> ids) const {
  assert(std::ssize(ids) == S_ && window >= 0 && window < windows_);
  std::size_t i = parts_.size() - 1;
  while (parts_[i].first > window) --i;
  const auto begin = static_cast<std::size_t>((window - parts_[i].first) * S_);
  if (!parts_[i].file) {
    std::copy_n(parts_[i].ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.size(),
                ids.begin());
    return;
  }
  const auto bytes = parts_[i].file->bytes();
  const std::size_t at = 2 * begin;
  for (std::size_t t = 0; t < ids.size(); ++t)
    ids[t] = bytes[at + 2 * t] | bytes[at + 2 * t + 1] << 8;
}

// A Feistel network over the smallest even number of bits that holds n, walked until it lands
// inside.
int64_t permuted(int64_t index, int64_t n, uint64_t key) {
  assert(index >= 0 && index < n);
  const int half =
      std::max(1, (static_cast<int>(std::bit_width(static_cast<uint64_t>(n - 1))) + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half) - 1;
  auto x = static_cast<uint64_t>(index);
  do {
    uint64_t left = x >> half, right = x & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t next = left ^ (mix(right ^ mix(key + round)) & mask);
      left = right;
      right = next;
    }
    x = left << half | right;
  } while (x >= static_cast<uint64_t>(n));
  return static_cast<int64_t>(x);
}

std::vector<int32_t> next_windows(const TokenData& data, int64_t S, int64_t B, int64_t cursor,
                                  uint64_t seed) {
  std::vector<int32_t> ids(static_cast<std::size_t>(B * S));
  const int64_t n = data.windows();
  for (int64_t b = 0; b < B; ++b) {
    const int64_t at = cursor + b;
    const int64_t window = permuted(at % n, n, mix(seed) + static_cast<uint64_t>(at / n));
    data.read(window,
              std::span(ids).subspan(static_cast<std::size_t>(b * S), static_cast<std::size_t>(S)));
  }
  return ids;
}

}  // namespace crumb::quant::train
