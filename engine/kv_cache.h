// Keys and values of one session: [layer][kv head][position][Dh], one scale per head and position
// for int8. The keys of 16 positions form a tile (kernels::KvHead).
#pragma once
#include <cstdint>
#include <vector>

#include "engine/arena.h"
#include "kernels/backend.h"
#include "models/config.h"

namespace crumb {

// Of all layers; those of a pruned model differ.
int64_t kv_heads_of_all(const models::ModelConfig& config);

class KvCache {
 public:
  // Address space for `context` positions; pages cost memory only when positions are written.
  KvCache(const models::ModelConfig& config, int64_t context, kernels::KvType type);

  // Stores one head's key and value of one position, converting to the cache's type.
  void store(const kernels::Backend& backend, int64_t layer, int64_t head, int64_t position,
             const float* k, const float* v) noexcept;
  // Takes over the first `n` positions of a cache of the same shape.
  void copy_prefix(const KvCache& from, int64_t n) noexcept;
  // Positions from chunk * kernels::kAttendChunk on.
  kernels::KvHead chunk(int64_t layer, int64_t head, int64_t chunk) const noexcept;

  kernels::KvType type() const { return type_; }
  // Bytes of one position over all layers and heads, scales included.
  int64_t bytes_per_position() const { return bytes_per_position_; }
  int64_t reserved_bytes() const { return bytes_per_position_ * context_; }

 private:
  int64_t index(int64_t layer, int64_t head) const {
    return before_[static_cast<std::size_t>(layer)] + head;
  }

  std::vector<int64_t> before_;  // [L] heads of the layers before
  int64_t heads_, head_dim_;     // heads_: of all layers
  int64_t context_;              // rounded up to whole tiles
  int64_t bytes_per_position_;
  kernels::KvType type_;
  int64_t value_bytes_;
  Arena arena_;
  uint8_t *k_, *v_;
  float *k_scale_ = nullptr, *v_scale_ = nullptr;
};

}  // namespace crumb
