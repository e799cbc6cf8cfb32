#include "engine/memory.h"

#include <algorithm>
#include <fstream>
#include <optional>

#include "engine/kv_cache.h"
#include "kernels/backend.h"
#include "models/errors.h"

namespace crumb {
namespace {

int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

std::optional<int64_t> first_number(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // absent, or "max"
}

int64_t meminfo(const std::string& root, const std::string& name) {
  std::ifstream file(root + "/proc/meminfo");
  std::string key, rest;
  int64_t kib = 0;
  while (file >> key >> kib && std::getline(file, rest))
    if (key == name + ":") return kib * 1024;
  return 0;
}

int64_t value_bytes(kernels::KvType type) {
  if (type == kernels::KvType::kF32) return 4;
  return type == kernels::KvType::kF16 ? 2 : 1;
}

// The buffers of Activations, AttentionBuffers and RopeTable (engine/transformer.h, attention.h).
int64_t activation_bytes(const models::ModelConfig& c, int64_t context, int64_t chunk,
                         int64_t threads) {
  const int64_t widest = padded(std::max({c.dim, c.ffn, c.heads * c.head_dim}), 64);
  const int64_t input = widest * (4 + 1) + widest / 32 * 8;  // floats, int8, scales and sums
  const int64_t token = 4 * (2 * c.dim + (2 * c.heads + 2 * c.kv_heads) * c.head_dim + 2 * c.ffn);
  const int64_t chunks = padded(context, kernels::kAttendChunk) / kernels::kAttendChunk;
  const int64_t parts = c.heads * chunks * (4 * c.head_dim + 32);
  const int64_t scratch =
      4 * kernels::kAttendRows * (kernels::kAttendChunk + c.head_dim);  // of each thread
  const int64_t tables = c.block.window > 0 && c.block.rope_theta_local != 0 ? 2 : 1;
  const int64_t rope = tables * context * c.head_dim * 4;
  return chunk * (token + input) + threads * (input + scratch) + parts + rope + 4 * c.vocab;
}

}  // namespace

int64_t kv_cache_bytes(const models::ModelConfig& c, int64_t context, kernels::KvType type) {
  const int64_t scale = type == kernels::KvType::kI8 ? 4 : 0;
  return 2 * kv_heads_of_all(c) * padded(context, kernels::kKeyTile) *
         (c.head_dim * value_bytes(type) + scale);
}

// Measured on the vocabularies of SmolLM2 (49,152) and Qwen2 (151,936): the binary, its libraries
// and the heap take 13.5 MB, the tokenizer's tables 110 bytes a token.
int64_t program_bytes(const models::ModelConfig& c) { return 13'500'000 + 110 * c.vocab; }

MemoryNeed memory_need(const models::ModelConfig& c, int64_t weights, const SessionOptions& options,
                       int slots, int threads) {
  const int64_t context = options.context == 0 ? c.context : options.context;
  MemoryNeed need;
  need.weights = weights;
  need.kv = slots * kv_cache_bytes(c, context, options.kv);
  need.activations =
      slots * activation_bytes(c, context, std::min(options.chunk, context), threads);
  need.program = program_bytes(c);
  return need;
}

SystemMemory system_memory(const std::string& root) {
  SystemMemory memory{meminfo(root, "MemTotal"), meminfo(root, "MemAvailable")};
  const std::string group = root + "/sys/fs/cgroup/";
  std::optional<int64_t> limit = first_number(group + "memory.max");
  std::optional<int64_t> used = first_number(group + "memory.current");
  if (!limit) {
    limit = first_number(group + "memory/memory.limit_in_bytes");
    used = first_number(group + "memory/memory.usage_in_bytes");
  }
  if (limit && *limit > 0 && (memory.total == 0 || *limit < memory.total)) {
    memory.total = *limit;
    const int64_t left = std::max<int64_t>(0, *limit - used.value_or(0));
    memory.available = memory.available == 0 ? left : std::min(memory.available, left);
  }
  return memory;
}

void require_memory(int64_t need, const SystemMemory& memory, const std::string& what) {
  if (memory.total == 0 || need <= memory.total) return;
  throw Error(ExitCode::kMemory,
              what + " cannot fit this machine's memory (expected at most " +
                  std::to_string(memory.total) + " bytes, found " + std::to_string(need) + ")",
              "use a smaller context (-c) or fewer bits; crumb estimate FILE shows the parts");
}

}  // namespace crumb
