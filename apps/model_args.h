// Options that many verbs share: which model, how to run it, how to sample.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/args.h"
#include "engine/engine.h"
#include "engine/generate.h"

namespace crumb::apps {

struct ModelArgs {
  std::string path, isa, kv;  // kv is empty until load_engine() if it was not given
  std::optional<int64_t> threads;
  int64_t context = 0;
  bool no_pin = false, mmap = false;
};
// -m --threads --isa --no-pin --mmap; add_session: --ctx-size --kv.
void add_model(Args& args, ModelArgs& model);
void add_session(Args& args, ModelArgs& model);

// What was given, else the first *.crumb of default_model_folders().
// Throws Error(kUsage) saying where it looked.
std::string model_path(const ModelArgs& model);
std::vector<std::string> default_model_folders();

// What was given, else 0 (= let the plan choose).
int thread_count(const ModelArgs& model);
LoadOptions load_options(const ModelArgs& model);
// Loads the model; a KV type that was not given becomes i8, or f32 for a model with float weights.
std::shared_ptr<const Engine> load_engine(ModelArgs& model);
SessionOptions session_options(const ModelArgs& model);
kernels::KvType kv_type(const std::string& name);  // "i8", "f16", "f32"

struct SamplingArgs {
  std::optional<float> temperature, top_p, min_p, repeat_penalty;
  std::optional<int64_t> top_k, repeat_last_n, max_tokens;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
};
void add_sampling(Args& args, SamplingArgs& sampling);
// The model's own defaults, overridden by what was given. The seed is random if none was.
GenerateOptions generate_options(const SamplingArgs& given, const Engine& engine);
uint64_t random_seed();  // short enough to be typed again

const char* finish_name(FinishReason reason);            // "stop", "length", "context", "cancelled"
double tokens_per_second(const GenerateResult& result);  // of decoding, 0 if nothing was decoded

}  // namespace crumb::apps
