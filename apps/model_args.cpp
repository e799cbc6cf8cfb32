#include "apps/model_args.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <random>
#include <sstream>

#include "models/errors.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kMaxContext = int64_t{1} << 24;

std::vector<std::string> checkpoints_in(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().extension() == ".crumb") found.push_back(it->path().string());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

void add_model(Args& args, ModelArgs& model) {
  args.text("-m,--model", model.path, "FILE",
            "model: .crumb, .gguf or a folder (default: the first of the model folders)");
  args.integer("-t,--threads", model.threads, 1, kMaxThreads,
               "threads (default: one per physical core)");
  args.text("--isa", model.isa, "NAME", "instruction set, see `crumb doctor` (default: the best)");
  args.flag("--no-pin", model.no_pin, "do not pin threads to cores");
  args.flag("--mmap", model.mmap,
            "use the weights in the mapped file instead of copying them to huge pages");
}

void add_session(Args& args, ModelArgs& model) {
  args.integer("-c,--ctx-size", model.context, 0, kMaxContext,
               "context in tokens (default: the trained length)");
  args.choice("--kv", model.kv, {"i8", "f16", "f32"},
              "type of cached keys and values (default i8; f32 for float weights)");
}

std::vector<std::string> default_model_folders() {
  std::vector<std::string> folders;
  const auto add = [&](const fs::path& folder) {
    if (std::find(folders.begin(), folders.end(), folder.string()) == folders.end())
      folders.push_back(folder.string());
  };
  std::error_code error;
  const fs::path binary = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    const fs::path home = binary.parent_path();
    add(home / "models/default");
    add(home.parent_path().parent_path() / "models/default");  // build/release
    add(home.parent_path() / "share/crumb/models");
  }
  if (const auto data = environment("XDG_DATA_HOME"))
    add(fs::path(*data) / "crumb/models");
  else if (const auto user = environment("HOME"))
    add(fs::path(*user) / ".local/share/crumb/models");
  std::istringstream shared(environment("XDG_DATA_DIRS").value_or("/usr/local/share:/usr/share"));
  for (std::string folder; std::getline(shared, folder, ':');)
    if (!folder.empty()) add(fs::path(folder) / "crumb/models");
  return folders;
}

std::string model_path(const ModelArgs& model) {
  if (!model.path.empty()) return model.path;
  const auto folders = default_model_folders();
  for (const auto& folder : folders)
    if (const auto found = checkpoints_in(folder); !found.empty()) return found.front();
  throw Error(ExitCode::kUsage,
              fmt::format("no model given, and no *.crumb in the default places ({})",
                          fmt::join(folders, ", ")),
              "pass -m FILE, set CRUMB_MODEL, or run apps/quickstart.sh in the source folder");
}

int thread_count(const ModelArgs& model) { return static_cast<int>(model.threads.value_or(0)); }

LoadOptions load_options(const ModelArgs& model) {
  LoadOptions options;
  options.threads = thread_count(model);
  options.pin = !model.no_pin;
  options.isa = model.isa;
  options.copy_weights = !model.mmap;
  return options;
}

std::shared_ptr<const Engine> load_engine(ModelArgs& model) {
  auto engine = Engine::load(model_path(model), load_options(model));
  if (model.kv.empty()) model.kv = engine->info().packed ? "i8" : "f32";
  return engine;
}

kernels::KvType kv_type(const std::string& name) {
  if (name == "f32") return kernels::KvType::kF32;
  return name == "f16" ? kernels::KvType::kF16 : kernels::KvType::kI8;
}

SessionOptions session_options(const ModelArgs& model) {
  SessionOptions options;
  options.context = model.context;
  options.kv = kv_type(model.kv);
  return options;
}

void add_sampling(Args& args, SamplingArgs& sampling) {
  args.integer("-n,--predict", sampling.max_tokens, -1, std::numeric_limits<int32_t>::max(),
               "tokens at most (-1: until it stops or the context is full)");
  args.real("--temp", sampling.temperature, 0, 100, "temperature, 0 = always the likeliest token");
  args.integer("--top-k", sampling.top_k, 0, 1 << 30, "keep the K likeliest, 0 = off");
  args.real("--top-p", sampling.top_p, 0, 1, "keep the likeliest of total probability P, 1 = off");
  args.real("--min-p", sampling.min_p, 0, 1,
            "keep those at least P times as likely as the first, 0 = off");
  args.real("--repeat-penalty", sampling.repeat_penalty, 0.01, 100,
            "penalty of repeated tokens, 1 = off");
  args.integer("--repeat-last-n", sampling.repeat_last_n, -1, 1 << 30,
               "tokens it looks back, -1 = all");
  args.integer("-s,--seed", sampling.seed, 0, std::numeric_limits<int64_t>::max(),
               "seed of sampling (default: random, and printed)");
  args.repeated("--stop", "TEXT", "text that ends the answer, may be repeated",
                [&sampling](const std::string& s) {
                  if (s.empty())
                    throw Error(ExitCode::kUsage,
                                "invalid value (--stop: expected a text, found '')");
                  sampling.stop.push_back(s);
                });
  args.flag("--ignore-eos", sampling.ignore_eos, "go on after an end-of-text token");
}

GenerateOptions generate_options(const SamplingArgs& given, const Engine& engine) {
  GenerateOptions options;
  SamplingOptions& sampling = options.sampling;
  sampling = default_sampling(engine.generation());
  sampling.temperature = given.temperature.value_or(sampling.temperature);
  sampling.top_k = given.top_k.value_or(sampling.top_k);
  sampling.top_p = given.top_p.value_or(sampling.top_p);
  sampling.min_p = given.min_p.value_or(sampling.min_p);
  sampling.repeat_penalty = given.repeat_penalty.value_or(sampling.repeat_penalty);
  sampling.repeat_last_n = given.repeat_last_n.value_or(sampling.repeat_last_n);
  sampling.seed = given.seed ? *given.seed : random_seed();
  options.max_tokens = given.max_tokens.value_or(-1);
  options.stop = given.stop;
  options.ignore_eos = given.ignore_eos;
  validate(sampling);
  return options;
}

uint64_t random_seed() {
  std::random_device device;
  return device() % 10'000'000;
}

const char* finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kCancelled:
      break;
  }
  return "cancelled";
}

double tokens_per_second(const GenerateResult& result) {
  // The first token comes out of the prompt's pass: it is not part of the decoding time.
  const auto decoded = static_cast<double>(result.ids.size()) - 1;
  return decoded > 0 && result.decode_seconds > 0 ? decoded / result.decode_seconds : 0;
}

}  // namespace crumb::apps
