#include "engine/kv_cache.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace crumb {
namespace {

int64_t bytes_of(kernels::KvType type) {
  switch (type) {
    case kernels::KvType::kF32:
      return 4;
    case kernels::KvType::kF16:
      return 2;
    case kernels::KvType::kI8:
      return 1;
  }
  return 0;
}

// `key` is where element 0 of the position stands in its tile.
template <class Value>
void scatter(const Value* row, int64_t Dh, Value* key) noexcept {
  for (int64_t d = 0; d < Dh; ++d) key[d * kernels::kKeyTile] = row[d];
}

}  // namespace

int64_t kv_heads_of_all(const models::ModelConfig& config) {
  int64_t heads = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer)
    heads += models::layer_size(config, layer).kv_heads;
  return heads;
}

KvCache::KvCache(const models::ModelConfig& config, int64_t context, kernels::KvType type)
    : heads_(kv_heads_of_all(config)),
      head_dim_(config.head_dim),
      context_((context + kernels::kKeyTile - 1) / kernels::kKeyTile * kernels::kKeyTile),
      type_(type),
      value_bytes_(bytes_of(type)) {
  for (int64_t layer = 0, heads = 0; layer < config.layers; ++layer) {
    before_.push_back(heads);
    heads += models::layer_size(config, layer).kv_heads;
  }
  const bool scaled = type == kernels::KvType::kI8;
  bytes_per_position_ = 2 * heads_ * (head_dim_ * value_bytes_ + (scaled ? 4 : 0));
  const auto values = static_cast<std::size_t>(heads_ * context_ * head_dim_ * value_bytes_);
  const auto scales = scaled ? static_cast<std::size_t>(heads_ * context_) * sizeof(float) : 0;
  arena_ = Arena(2 * (Arena::aligned_size(values) + Arena::aligned_size(scales)), false);
  k_ = arena_.take(values);
  v_ = arena_.take(values);
  if (scaled) {
    k_scale_ = arena_.take_array<float>(scales / sizeof(float)).data();
    v_scale_ = arena_.take_array<float>(scales / sizeof(float)).data();
  }
}

void KvCache::store(const kernels::Backend& backend, int64_t layer, int64_t head, int64_t position,
                    const float* k, const float* v) noexcept {
  const int64_t row = index(layer, head) * context_ + position;
  const int64_t in_tile = position % kernels::kKeyTile;
  uint8_t* k_row = k_ + ((row - in_tile) * head_dim_ + in_tile) * value_bytes_;
  uint8_t* v_row = v_ + row * head_dim_ * value_bytes_;
  switch (type_) {
    case kernels::KvType::kF32:
      scatter(k, head_dim_, reinterpret_cast<float*>(k_row));
      std::memcpy(v_row, v, static_cast<std::size_t>(head_dim_) * 4);
      break;
    case kernels::KvType::kF16: {
      std::array<uint16_t, models::kMaxHeadDim> key;
      backend.to_f16(k, head_dim_, key.data());
      scatter(key.data(), head_dim_, reinterpret_cast<uint16_t*>(k_row));
      backend.to_f16(v, head_dim_, reinterpret_cast<uint16_t*>(v_row));
      break;
    }
    case kernels::KvType::kI8: {
      std::array<int8_t, models::kMaxHeadDim> key;
      k_scale_[row] = backend.to_i8(k, head_dim_, key.data());
      scatter(key.data(), head_dim_, reinterpret_cast<int8_t*>(k_row));
      v_scale_[row] = backend.to_i8(v, head_dim_, reinterpret_cast<int8_t*>(v_row));
      break;
    }
  }
}

void KvCache::copy_prefix(const KvCache& from, int64_t n) noexcept {
  // Keys lie in tiles: the last one is taken whole.
  const int64_t tiled =
      std::min(context_, (n + kernels::kKeyTile - 1) / kernels::kKeyTile * kernels::kKeyTile);
  const auto values = [&](int64_t positions) {
    return static_cast<std::size_t>(positions * head_dim_ * value_bytes_);
  };
  for (int64_t head = 0; head < heads_; ++head) {
    const int64_t row = head * context_, at = row * head_dim_ * value_bytes_;
    std::memcpy(k_ + at, from.k_ + at, values(tiled));
    std::memcpy(v_ + at, from.v_ + at, values(n));
    if (k_scale_ == nullptr) continue;
    std::memcpy(k_scale_ + row, from.k_scale_ + row, static_cast<std::size_t>(n) * sizeof(float));
    std::memcpy(v_scale_ + row, from.v_scale_ + row, static_cast<std::size_t>(n) * sizeof(float));
  }
}

kernels::KvHead KvCache::chunk(int64_t layer, int64_t head, int64_t chunk) const noexcept {
  const int64_t row = index(layer, head) * context_ + chunk * kernels::kAttendChunk;
  kernels::KvHead view;
  view.k = k_ + row * head_dim_ * value_bytes_;
  view.v = v_ + row * head_dim_ * value_bytes_;
  view.k_scale = k_scale_ != nullptr ? k_scale_ + row : nullptr;
  view.v_scale = v_scale_ != nullptr ? v_scale_ + row : nullptr;
  view.type = type_;
  return view;
}

}  // namespace crumb
