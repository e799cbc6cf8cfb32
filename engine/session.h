// What Engine and Session own; for engine/ only.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/kv_cache.h"
#include "engine/threads/pool.h"
#include "engine/transformer.h"
#include "engine/vision/weights.h"
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
  std::optional<vision::Weights> vision;  // of a model that sees
  ModelInfo info;
};

// Throws Error(kMemory) unless `tokens` more fit the sequence.
void require_room(const Sequence& sequence, int64_t tokens);

// A batch of one sequence.
struct Session::State {
  State(std::shared_ptr<const Engine> the_engine, const SessionOptions& options);

  // Runs `ids` as one step; logits of its last token, of all, or none.
  void step(std::span<const int32_t> ids, LogitsOf logits, std::span<const float> rows = {});

  std::shared_ptr<const Engine> engine;
  Batch batch;
  std::unique_ptr<Sequence> sequence;
  int64_t last_row = 0;  // of the latest step's logits
};

}  // namespace crumb
