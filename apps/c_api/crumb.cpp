#include "apps/c_api/crumb.h"

#include <atomic>
#include <cmath>
#include <mutex>
#include <new>
#include <random>
#include <stdexcept>
#include <thread>

#include "engine/chat.h"
#include "models/errors.h"
#include "models/json.h"
#include "tokenizer/chat_template.h"

namespace {

using crumb::Error;
using crumb::ExitCode;

// The engine, which one call at a time may run. Conversations share it with the model's handle.
struct Runner {
  std::shared_ptr<const crumb::Engine> engine;
  std::mutex mutex;
  std::atomic<std::thread::id> owner;
};

class Turn {
 public:
  explicit Turn(Runner& runner) : runner_(runner) {
    if (runner.owner == std::this_thread::get_id())
      throw Error(ExitCode::kUsage, "a callback must not run the model that calls it");
    runner.mutex.lock();
    runner.owner = std::this_thread::get_id();
  }
  ~Turn() {
    runner_.owner = std::thread::id();
    runner_.mutex.unlock();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Runner& runner_;
};

// A message that does not fit into memory must not end the program.
struct LastError {
  std::string text;
  void set(const char* message) noexcept {
    try {
      text = message;
    } catch (...) {
      text.clear();
    }
  }
};
thread_local LastError last_error;

crumb_status failed(crumb_status status, const char* message) noexcept {
  last_error.set(message);
  return status;
}

// Runs `work`, turning what it throws into a status.
template <class Work>
crumb_status guarded(const Work& work) noexcept {
  try {
    work();
    return CRUMB_OK;
  } catch (const Error& e) {
    return failed(static_cast<crumb_status>(e.code()), e.what());
  } catch (const crumb::tokenizer::TemplateError& e) {
    return failed(CRUMB_ERROR_BAD_FILE, e.what());
  } catch (const crumb::SchemaError& e) {
    return failed(CRUMB_ERROR_USAGE, e.what());
  } catch (const std::bad_alloc&) {
    return failed(CRUMB_ERROR_MEMORY, "out of memory");
  } catch (const std::length_error& e) {
    return failed(CRUMB_ERROR_MEMORY, e.what());
  } catch (const std::invalid_argument& e) {
    return failed(CRUMB_ERROR_BAD_FILE, e.what());
  } catch (const std::exception& e) {
    return failed(CRUMB_ERROR_INTERNAL, e.what());
  } catch (...) {
    return failed(CRUMB_ERROR_INTERNAL, "unknown exception");
  }
}

template <class T>
T& need(T* pointer, const char* name) {
  if (pointer == nullptr) throw Error(ExitCode::kUsage, std::string("null pointer (") + name + ")");
  return *pointer;
}

std::string_view text_of(const char* text, size_t bytes, const char* name) {
  if (bytes == 0) return {};
  return {&need(text, name), bytes};
}

// The caller's struct, which may be of an older version: what it does not have keeps its default.
template <class Options>
Options known_part(const Options* given, Options options, const char* name) {
  if (given == nullptr) return options;
  if (given->size < sizeof(size_t) || given->size > 4096)
    throw Error(ExitCode::kUsage, std::string("options without their _init (") + name + ")");
  const size_t size = std::min(given->size, sizeof(Options));
  std::copy_n(reinterpret_cast<const char*>(given), size, reinterpret_cast<char*>(&options));
  return options;
}

void require(bool good, const char* message) {
  if (!good) throw Error(ExitCode::kUsage, message);
}

crumb::SessionOptions session_options(const crumb_chat_options* given,
                                      const crumb::Engine& engine) {
  crumb_chat_options defaults;
  crumb_chat_options_init(&defaults);
  const auto options = known_part(given, defaults, "crumb_chat_options");
  crumb::SessionOptions session;
  require(options.context >= 0 && options.context <= int64_t{1} << 24,
          "invalid value (context: expected 0 to 16777216)");
  session.context = options.context;
  const std::string kv = options.kv != nullptr ? options.kv : engine.info().packed ? "i8" : "f32";
  require(kv == "i8" || kv == "f16" || kv == "f32", "invalid value (kv: expected i8, f16 or f32)");
  session.kv = kv == "f32"   ? crumb::kernels::KvType::kF32
               : kv == "f16" ? crumb::kernels::KvType::kF16
                             : crumb::kernels::KvType::kI8;
  return session;
}

crumb_generate_options defaults_of(const crumb::Engine& engine) {
  const auto sampling = crumb::default_sampling(engine.generation());
  crumb_generate_options options{};
  options.size = sizeof options;
  options.max_tokens = -1;
  options.seed = -1;
  options.top_k = sampling.top_k;
  options.repeat_last_n = sampling.repeat_last_n;
  options.temperature = sampling.temperature;
  options.top_p = sampling.top_p;
  options.min_p = sampling.min_p;
  options.repeat_penalty = sampling.repeat_penalty;
  return options;
}

crumb::GenerateOptions generate_options(const crumb_generate_options* given,
                                        const crumb::Engine& engine) {
  const auto options = known_part(given, defaults_of(engine), "crumb_generate_options");
  crumb::GenerateOptions result;
  require(options.max_tokens >= -1, "invalid value (max_tokens: expected -1 or more)");
  require(options.seed >= -1, "invalid value (seed: expected -1 or more)");
  result.max_tokens = options.max_tokens;
  result.ignore_eos = options.ignore_eos != 0;
  auto& sampling = result.sampling;
  sampling = crumb::default_sampling(engine.generation());
  sampling.top_k = options.top_k;
  sampling.repeat_last_n = options.repeat_last_n;
  sampling.temperature = options.temperature;
  sampling.top_p = options.top_p;
  sampling.min_p = options.min_p;
  sampling.repeat_penalty = options.repeat_penalty;
  sampling.seed =
      options.seed >= 0 ? static_cast<uint64_t>(options.seed) : std::random_device()() % 10'000'000;
  crumb::validate(sampling);
  require(options.stop_count <= 64, "invalid value (stop_count: expected at most 64)");
  for (size_t i = 0; i < options.stop_count; ++i) {
    result.stop.emplace_back(&need((&need(options.stop, "stop"))[i], "stop"));
    require(!result.stop.back().empty(), "invalid value (stop: expected a text, found '')");
  }
  if (options.json_schema != nullptr) {
    const auto schema = nlohmann::ordered_json::parse(options.json_schema, nullptr, false);
    require(!schema.is_discarded(), "the schema is not valid JSON (json_schema)");
    result.grammar = crumb::JsonGrammar::from_schema(schema);
  }
  return result;
}

// What comes after the callback said stop (the rest of a held-back text) is not told to it.
std::function<bool(std::string_view)> listener(crumb_on_text on_text, void* user) {
  return [on_text, user, stopped = false](std::string_view piece) mutable {
    if (on_text == nullptr || piece.empty()) return true;
    const std::string text(piece);  // with a NUL behind
    stopped = stopped || on_text(text.c_str(), text.size(), user) != 0;
    return !stopped;
  };
}

void store(const crumb::GenerateResult& from, const crumb::GenerateOptions& options,
           crumb_result* to) {
  if (to == nullptr) return;
  *to = {};
  to->finish = static_cast<crumb_finish>(from.reason);
  to->prompt_tokens = from.prompt_tokens;
  to->cached_tokens = from.cached_tokens;
  to->completion_tokens = static_cast<int64_t>(from.ids.size());
  to->seed = static_cast<int64_t>(options.sampling.seed);
  to->prompt_seconds = from.prompt_seconds;
  to->first_token_seconds = from.first_token_seconds;
  to->decode_seconds = from.decode_seconds;
}

static_assert(static_cast<int>(crumb::FinishReason::kStop) == CRUMB_FINISH_STOP &&
              static_cast<int>(crumb::FinishReason::kLength) == CRUMB_FINISH_LENGTH &&
              static_cast<int>(crumb::FinishReason::kContext) == CRUMB_FINISH_CONTEXT &&
              static_cast<int>(crumb::FinishReason::kCancelled) == CRUMB_FINISH_CANCELLED);

}  // namespace

struct crumb_model {
  std::shared_ptr<Runner> runner;
};

struct crumb_chat {
  std::shared_ptr<Runner> runner;
  crumb::Chat chat;
};

extern "C" {

const char* crumb_version(void) { return CRUMB_VERSION; }

const char* crumb_last_error(void) { return last_error.text.c_str(); }

void crumb_model_options_init(crumb_model_options* options) {
  if (options != nullptr) *options = {sizeof *options, 0, 1, 1, nullptr};
}

void crumb_chat_options_init(crumb_chat_options* options) {
  if (options != nullptr) *options = {sizeof *options, 0, nullptr};
}

crumb_status crumb_generate_options_init(const crumb_model* model,
                                         crumb_generate_options* options) {
  return guarded(
      [&] { need(options, "options") = defaults_of(*need(model, "model").runner->engine); });
}

crumb_status crumb_model_open(const char* path, const crumb_model_options* options,
                              crumb_model** model) {
  return guarded([&] {
    need(model, "model") = nullptr;
    crumb_model_options defaults;
    crumb_model_options_init(&defaults);
    const auto given = known_part(options, defaults, "crumb_model_options");
    require(given.threads >= 0 && given.threads <= 1024,
            "invalid value (threads: expected 0 to 1024)");
    crumb::LoadOptions load;
    load.threads = given.threads;
    load.pin = given.pin != 0;
    load.copy_weights = given.copy_weights != 0;
    if (given.isa != nullptr) load.isa = given.isa;
    auto runner = std::make_shared<Runner>();
    runner->engine = crumb::Engine::load(&need(path, "path"), load);
    *model = new crumb_model{std::move(runner)};
  });
}

void crumb_model_close(crumb_model* model) { delete model; }

const char* crumb_model_name(const crumb_model* model) {
  return model == nullptr ? "" : model->runner->engine->info().name.c_str();
}

int64_t crumb_model_context(const crumb_model* model) {
  return model == nullptr ? 0 : model->runner->engine->config().context;
}

int64_t crumb_model_vocabulary(const crumb_model* model) {
  return model == nullptr ? 0 : model->runner->engine->tokenizer().size();
}

crumb_status crumb_tokenize(const crumb_model* model, const char* text, size_t bytes, int special,
                            int32_t* ids, size_t capacity, size_t* count) {
  return guarded([&] {
    const auto& tokenizer = need(model, "model").runner->engine->tokenizer();
    need(count, "count") = 0;
    if (capacity > 0) need(ids, "ids");
    const auto found = tokenizer.encode(text_of(text, bytes, "text"), special != 0);
    std::copy_n(found.begin(), std::min(capacity, found.size()), ids);
    *count = found.size();
  });
}

crumb_status crumb_detokenize(const crumb_model* model, const int32_t* ids, size_t count,
                              int special, char* text, size_t capacity, size_t* bytes) {
  return guarded([&] {
    const auto& tokenizer = need(model, "model").runner->engine->tokenizer();
    need(bytes, "bytes") = 0;
    if (capacity > 0) need(text, "text");
    if (count > 0) need(ids, "ids");
    for (size_t i = 0; i < count; ++i)
      require(ids[i] >= 0 && ids[i] < tokenizer.size(), "a token id out of range (ids)");
    const std::string found = tokenizer.decode(std::span(ids, count), special != 0);
    std::copy_n(found.begin(), std::min(capacity, found.size()), text);
    *bytes = found.size();
  });
}

crumb_status crumb_generate(crumb_model* model, const char* prompt, size_t bytes,
                            const crumb_chat_options* chat_options,
                            const crumb_generate_options* options, crumb_on_text on_text,
                            void* user, crumb_result* result) {
  return guarded([&] {
    const auto runner = need(model, "model").runner;
    const crumb::Engine& engine = *runner->engine;
    const auto generate = generate_options(options, engine);
    const auto ids = engine.tokenizer().encode(text_of(prompt, bytes, "prompt"), true);
    require(!ids.empty(), "the prompt is empty");
    const Turn turn(*runner);
    const auto session = engine.make_session(session_options(chat_options, engine));
    store(crumb::generate(*session, engine, ids, generate, listener(on_text, user)), generate,
          result);
  });
}

crumb_status crumb_chat_open(crumb_model* model, const crumb_chat_options* options,
                             crumb_chat** chat) {
  return guarded([&] {
    need(chat, "chat") = nullptr;
    const auto runner = need(model, "model").runner;
    const auto session = session_options(options, *runner->engine);
    *chat = new crumb_chat{runner, crumb::Chat(runner->engine, session)};
  });
}

void crumb_chat_close(crumb_chat* chat) { delete chat; }

crumb_status crumb_chat_add(crumb_chat* chat, const char* role, const char* content) {
  return guarded([&] {
    crumb_chat& to = need(chat, "chat");
    const std::string who = &need(role, "role"), what = &need(content, "content");
    require(who == "system" || who == "user" || who == "assistant",
            "invalid value (role: expected system, user or assistant)");
    const Turn turn(*to.runner);
    to.chat.messages().push_back({who, what});
  });
}

crumb_status crumb_chat_clear(crumb_chat* chat) {
  return guarded([&] {
    crumb_chat& to = need(chat, "chat");
    const Turn turn(*to.runner);
    to.chat.messages().clear();
  });
}

crumb_status crumb_chat_say(crumb_chat* chat, const char* text,
                            const crumb_generate_options* options, crumb_on_text on_text,
                            void* user, crumb_result* result) {
  return guarded([&] {
    crumb_chat& to = need(chat, "chat");
    const std::string message = &need(text, "text");
    const auto generate = generate_options(options, *to.runner->engine);
    const Turn turn(*to.runner);
    store(to.chat.say(message, generate, listener(on_text, user)), generate, result);
  });
}

}  // extern "C"
