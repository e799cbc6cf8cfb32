// What Engine and Session own; for engine/ only.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_cache.h"
#include "engine/threads/pool.h"
#include "engine/transformer.h"
#include "engine/weights.h"
#include "models/checkpoint.h"

namespace crumb {

struct Engine::State {
  State(threads::Plan the_plan, const kernels::Backend& the_backend)
      : plan(std::move(the_plan)), backend(the_backend), pool(plan) {}

  threads::Plan plan;
  const kernels::Backend& backend;
  mutable threads::Pool pool;
  mutable std::mutex pool_mutex;  // one session's step at a time
  std::optional<models::Checkpoint> checkpoint;
  models::ModelConfig config;
  models::GenerationDefaults generation;
  std::string chat_template;
  std::vector<int32_t> stop;
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer;
  Weights weights;
  ModelInfo info;
};

struct Session::State {
  State(std::shared_ptr<const Engine> the_engine, const SessionOptions& options);

  // Runs ids[from, from + T) as one step, with logits for its tokens from `logits_from` on.
  void step(std::span<const int32_t> ids, int64_t logits_from);
  void require_room(int64_t tokens) const;

  std::shared_ptr<const Engine> engine;
  int64_t context, chunk;
  KvCache cache;
  RopeTables rope;
  Activations act;
  int64_t position = 0;
  PhaseTimes* times = nullptr;
};

}  // namespace crumb
