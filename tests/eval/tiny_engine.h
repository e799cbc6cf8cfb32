// A tiny random model loaded for evaluation, and texts it can read.
#pragma once
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "models/tiny_model.h"

namespace crumb::eval {

inline std::shared_ptr<const Engine> tiny_engine(uint64_t seed = 1, int threads = 1) {
  models::TinyOptions tiny;
  tiny.seed = seed;
  LoadOptions load;
  load.threads = threads;
  load.pin = false;
  return Engine::from_source(models::tiny_model(tiny), load);
}

// Printable text of at least n bytes, not periodic.
inline std::string some_text(std::size_t n) {
  std::string text;
  for (uint32_t state = 1; text.size() < n;) {
    state = state * 1664525u + 1013904223u;
    text += static_cast<char>('a' + (state >> 24) % 26);
    if (state >> 30 == 0) text += ' ';
  }
  return text;
}

// Logits of every position, one token at a time: the slow way round.
inline std::vector<std::vector<float>> logits_one_by_one(const Engine& engine,
                                                         std::span<const int32_t> ids,
                                                         kernels::KvType kv) {
  SessionOptions options;
  options.kv = kv;
  options.chunk = 1;
  const auto session = engine.make_session(options);
  std::vector<std::vector<float>> all;
  for (const int32_t id : ids) {
    const auto logits = session->forward(std::span(&id, 1));
    all.emplace_back(logits.begin(), logits.end());
  }
  return all;
}

// log softmax by the definition, in long double.
inline std::vector<long double> log_probabilities(const std::vector<float>& logits) {
  long double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<long double>(x));
  std::vector<long double> result;
  for (const float x : logits) result.push_back(x - std::log(sum));
  return result;
}

}  // namespace crumb::eval
