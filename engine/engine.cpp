#include "engine/engine.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "engine/memory.h"
#include "engine/session.h"
#include "engine/vocab_tokenizer.h"
#include "models/checkpoint.h"
#include "models/errors.h"

namespace crumb {
namespace {

std::vector<int32_t> stop_list(const models::Vocab& vocab) {
  std::vector<int32_t> stop = vocab.stop;
  for (const int32_t id : {vocab.eos, vocab.eot})
    if (id >= 0) stop.push_back(id);
  std::sort(stop.begin(), stop.end());
  stop.erase(std::unique(stop.begin(), stop.end()), stop.end());
  return stop;
}

const kernels::Backend& choose_backend(const std::string& asked) {
  const char* environment = std::getenv("CRUMB_ISA");
  const std::string name = !asked.empty() ? asked : environment != nullptr ? environment : "";
  if (name.empty()) return *kernels::backends().front();
  if (const auto* backend = kernels::find_backend(name)) return *backend;
  std::string compiled;
  bool known = false;
  for (const auto& each : kernels::compiled_backends()) {
    compiled += (compiled.empty() ? "" : ", ") + std::string(each);
    known = known || each == name;
  }
  if (known)
    throw Error(ExitCode::kCpu,
                "this CPU cannot run the kernels '" + name +
                    "' (it has: " + std::string(kernels::cpu_features()) + ")",
                "unset CRUMB_ISA to choose the best ones");
  throw Error(ExitCode::kUsage,
              "unknown kernels '" + name + "' (CRUMB_ISA: expected one of " + compiled + ")");
}

const char* grid_name(kernels::Grid grid) {
  switch (grid) {
    case kernels::Grid::kSeq:
      return "seq";
    case kernels::Grid::kLsq:
      return "lsq";
    case kernels::Grid::kAsym:
      return "asym";
  }
  return "?";
}

std::string describe(const Linear& w, int64_t hadamard) {
  if (w.bands.empty()) return "F32";
  const kernels::PackedMatrix& first = w.bands.front();
  return models::widths_text(models::bands_of(w.bands)) +
         (first.group == w.K ? " row " : " g" + std::to_string(first.group) + " ") +
         grid_name(first.grid) + (hadamard > 0 ? " rotated" : "");
}

void fill_info(Engine::State& s, const std::string& path, const std::string& of) {
  ModelInfo& info = s.info;
  info.path = path;
  info.name = s.config.name;
  const Layer& first = s.weights.layers.front();
  info.weights = describe(first.gate, first.mlp_in.hadamard) + (of.empty() ? "" : " (" + of + ")");
  info.packed = !first.gate.bands.empty();
  info.linear_bytes_per_token = s.weights.linear_bytes;
  info.head_bytes_per_token = s.weights.head_bytes;
  const int64_t head_weights = s.config.vocab * s.config.dim;
  info.parameters = s.weights.linear_weights + (s.config.tied_head ? 1 : 2) * head_weights;
  info.linear_bpw = 8.0 * static_cast<double>(s.weights.linear_bytes) /
                    static_cast<double>(s.weights.linear_weights);
  info.head_bits =
      8.0 * static_cast<double>(s.weights.head_bytes) / static_cast<double>(head_weights);
  const int64_t total = s.weights.linear_bytes + s.weights.head_bytes +
                        (s.config.tied_head ? 0 : s.weights.embedding_bytes);
  info.total_bpw = 8.0 * static_cast<double>(total) / static_cast<double>(info.parameters);
}

}  // namespace

Engine::Engine() = default;
Engine::~Engine() = default;

std::shared_ptr<const Engine> Engine::load(const std::string& path, const LoadOptions& options) {
  if (!models::is_checkpoint(path)) {
    auto source = models::open_source(path);
    auto engine = std::const_pointer_cast<Engine>(from_source(source, options));
    engine->state_->info.path = path;
    engine->state_->info.file_bytes = source.file_bytes;
    return engine;
  }
  std::shared_ptr<Engine> engine(new Engine);
  engine->state_ = std::make_unique<State>(threads::make_plan(options.threads, options.pin),
                                           choose_backend(options.isa));
  State& s = *engine->state_;
  s.checkpoint = models::Checkpoint::open(path);
  const models::Checkpoint& file = *s.checkpoint;
  s.config = file.config();
  s.generation = file.generation();
  s.chat_template = file.chat_template();
  s.stop = stop_list(file.vocab());
  if (options.copy_weights)
    require_memory(static_cast<int64_t>(file.file().bytes().size()), system_memory(), path);
  s.tokenizer = tokenizer_of(file.vocab());
  s.weights = bind_weights(file, options.copy_weights, s.pool);
  if (s.config.vision) s.vision = vision::bind(file);
  fill_info(s, path, "");
  s.info.file_bytes = static_cast<int64_t>(file.file().bytes().size());
  return engine;
}

std::shared_ptr<const Engine> Engine::from_source(const models::SourceModel& source,
                                                  const LoadOptions& options) {
  std::shared_ptr<Engine> engine(new Engine);
  engine->state_ = std::make_unique<State>(threads::make_plan(options.threads, options.pin),
                                           choose_backend(options.isa));
  State& s = *engine->state_;
  s.config = source.config;
  s.generation = source.generation;
  s.chat_template = source.chat_template;
  s.stop = stop_list(source.vocab);
  int64_t weights = 0;
  for (const auto& tensor : models::whole_table(s.config)) {
    int64_t n = 4;
    for (const int64_t d : tensor.shape) n *= d;
    weights += n;
  }
  require_memory(weights, system_memory(), "the model in floats");
  s.tokenizer = tokenizer_of(source.vocab);
  s.weights = read_weights(source, s.pool);
  if (s.config.vision) s.vision = vision::read(source);
  fill_info(s, "", source.description);
  return engine;
}

const models::ModelConfig& Engine::config() const { return state_->config; }
const models::GenerationDefaults& Engine::generation() const { return state_->generation; }
const tokenizer::Tokenizer& Engine::tokenizer() const { return *state_->tokenizer; }
const std::string& Engine::chat_template() const { return state_->chat_template; }
const std::vector<int32_t>& Engine::stop_tokens() const { return state_->stop; }
const ModelInfo& Engine::info() const { return state_->info; }
const kernels::Backend& Engine::backend() const { return state_->backend; }
const threads::Plan& Engine::thread_plan() const { return state_->plan; }

std::unique_ptr<Session> Engine::make_session(const SessionOptions& options) const {
  return std::make_unique<Session>(std::make_unique<Session::State>(shared_from_this(), options));
}

}  // namespace crumb
