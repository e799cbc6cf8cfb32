// How much memory a model, its sessions and the quantizer take, before any of it is taken.
#pragma once
#include <cstdint>
#include <string>

#include "engine/engine.h"
#include "models/config.h"

namespace crumb {

// Bytes resident at the most, with the whole context in use.
struct MemoryNeed {
  int64_t weights = 0;      // as they run: packed (copied or mapped), or floats
  int64_t kv = 0;           // of all slots
  int64_t activations = 0;  // of all slots
  int64_t program = 0;      // the program itself and the tokenizer
  int64_t total() const { return weights + kv + activations + program; }
};

// `weights` in bytes; `slots` sessions of `options` on one engine with `threads` threads.
MemoryNeed memory_need(const models::ModelConfig& config, int64_t weights,
                       const SessionOptions& options, int slots, int threads);
int64_t kv_cache_bytes(const models::ModelConfig& config, int64_t context, kernels::KvType type);
int64_t program_bytes(const models::ModelConfig& config);

// What the machine has: physical memory and what is free of it, less if a cgroup limits us (v2
// memory.max, v1 memory.limit_in_bytes). Files are looked up under `root` ("" on a real machine).
// Values that cannot be read are 0 = unknown.
struct SystemMemory {
  int64_t total = 0, available = 0;
};
SystemMemory system_memory(const std::string& root = "");

// Throws Error(kMemory) if `need` bytes for `what` are more than `memory.total`: it cannot fit,
// whatever else runs.
void require_memory(int64_t need, const SystemMemory& memory, const std::string& what);

}  // namespace crumb
