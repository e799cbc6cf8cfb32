// The fields that chat, completions and embeddings share.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <random>

#include "apps/serve/api_request.h"

namespace crumb::serve {
namespace {

constexpr int64_t kMaxStopCharacters = 256;
constexpr int64_t kMaxBiases = 1024;
constexpr int64_t kMany = int64_t{1} << 31;

int64_t characters(const std::string& utf8) {
  return std::count_if(utf8.begin(), utf8.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::vector<std::string> read_stops(Fields& fields, const Limits& limits) {
  const Json* value = fields.value("stop");
  if (value == nullptr) return {};
  const std::string expected = fmt::format("a string of 1..{} characters or an array of at most {}",
                                           kMaxStopCharacters, limits.stops);
  std::vector<std::string> stops;
  const auto add = [&](const Json& stop) {
    if (!stop.is_string() || stop.get_ref<const std::string&>().empty() ||
        characters(stop.get_ref<const std::string&>()) > kMaxStopCharacters)
      fields.refuse("stop", expected, stop);
    stops.push_back(stop.get<std::string>());
  };
  if (!value->is_array()) {
    add(*value);
    return stops;
  }
  if (static_cast<int64_t>(value->size()) > limits.stops) fields.refuse("stop", expected, *value);
  for (const Json& stop : *value) add(stop);
  return stops;
}

std::vector<LogitBias> read_biases(Fields& fields, const ServedModel& model) {
  const Json* object = fields.object("logit_bias");
  if (object == nullptr) return {};
  if (static_cast<int64_t>(object->size()) > kMaxBiases)
    fields.refuse("logit_bias", fmt::format("at most {} entries", kMaxBiases), *object);
  const int64_t vocab = model.engine->config().vocab;
  std::vector<LogitBias> biases;
  for (const auto& [name, value] : object->items()) {
    const std::string path = "logit_bias." + name.substr(0, 32);
    int64_t id = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (error != std::errc() || end != name.data() + name.size() || id < 0 || id >= vocab)
      throw bad_field(path, fmt::format("a token id in 0..{}", vocab - 1), "another name");
    const double bias = value.is_number() ? value.get<double>() : 1000;
    if (!(bias >= -100 && bias <= 100))
      throw bad_field(path, "a number in -100..100", shown(value));
    biases.push_back({static_cast<int32_t>(id), static_cast<float>(bias)});
  }
  return biases;
}

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 20) ^ device();
}

std::vector<int32_t> encode(const std::string& text, bool literal, const ServedModel& model) {
  std::vector<int32_t> ids = model.engine->tokenizer().encode(text, literal);
  if (!ids.empty()) return ids;
  // An empty text continues from the beginning of a text.
  const auto& data = model.engine->tokenizer().data();
  const int32_t first = data.bos >= 0 ? data.bos : data.eos;
  if (first >= 0) ids.push_back(first);
  return ids;
}

}  // namespace

bool read_model_name(Fields& fields, const ServedModel& model) {
  const auto name = fields.text("model");
  if (name && model.strict_id && *name != model.id)
    throw ApiError{404, "the model is not served here (this server has '" + model.id + "')",
                   "model", "model_not_found"};
  return name && *name != model.id;
}

std::vector<int32_t> read_ids(const Json& array, const std::string& path,
                              const ServedModel& model) {
  const int64_t vocab = model.engine->config().vocab;
  std::vector<int32_t> ids;
  for (const Json& id : array) {
    const auto value = integer_of(id);
    if (!value || *value < 0 || *value >= vocab)
      throw bad_field(fmt::format("{}[{}]", path, ids.size()),
                      fmt::format("a token id in 0..{}", vocab - 1), shown(id));
    ids.push_back(static_cast<int32_t>(*value));
  }
  return ids;
}

std::vector<Prompt> read_prompts(Fields& fields, const char* name, const ServedModel& model,
                                 const Limits& limits, bool literal) {
  const Json* value = fields.value(name);
  if (value == nullptr)
    throw bad_field(fields.path_of(name), "a string, token ids, or an array of these", "nothing");
  std::vector<Prompt> prompts;
  const auto add = [&](const Json& one, const std::string& path) {
    if (one.is_string()) {
      const auto& text = one.get_ref<const std::string&>();
      prompts.push_back({encode(text, literal, model), text});
    } else if (one.is_array()) {
      prompts.push_back({read_ids(one, path, model), ""});
    } else {
      throw bad_field(path, "a string or an array of token ids", shown(one));
    }
    if (prompts.back().ids.empty()) throw bad_field(path, "at least one token", "none");
  };
  const std::string path = fields.path_of(name);
  if (!value->is_array() || (!value->empty() && value->front().is_number())) {
    add(*value, path);
    return prompts;
  }
  if (value->empty() || static_cast<int64_t>(value->size()) > limits.prompts)
    fields.refuse(name, fmt::format("1..{} texts", limits.prompts), *value);
  for (const Json& one : *value) add(one, fmt::format("{}[{}]", path, prompts.size()));
  return prompts;
}

Job read_generation(Fields& fields, const ServedModel& model, const Limits& limits) {
  Job job;
  SamplingOptions& s = job.sampling;
  s = default_sampling(model.engine->generation());
  const auto real = [&](const char* name, double low, double high, float& target) {
    if (const auto value = fields.real(name, low, high)) target = static_cast<float>(*value);
  };
  real("temperature", 0, 2, s.temperature);
  real("top_p", 0, 1, s.top_p);
  s.top_p = std::max(s.top_p, 1e-6f);  // 0 keeps the likeliest token alone, as the smallest does
  real("min_p", 0, 1, s.min_p);
  real("presence_penalty", -2, 2, s.presence_penalty);
  real("frequency_penalty", -2, 2, s.frequency_penalty);
  real("repetition_penalty", 0.01, 100, s.repeat_penalty);
  real("repeat_penalty", 0.01, 100, s.repeat_penalty);
  if (const auto k = fields.integer("top_k", -1, kMany)) s.top_k = std::max<int64_t>(*k, 0);
  if (const auto n = fields.integer("repeat_last_n", -1, kMany)) s.repeat_last_n = *n;
  s.seed = random_seed();
  if (const auto seed = fields.integer("seed", -1, INT64_MAX); seed && *seed >= 0)
    s.seed = static_cast<uint64_t>(*seed);
  s.bias = read_biases(fields, model);
  job.stop = read_stops(fields, limits);
  job.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  job.cache = fields.boolean("cache_prompt").value_or(true);
  return job;
}

void read_format(Fields& fields, Job& job, UnknownFields& unknown) {
  const Json* format = fields.object("response_format");
  if (format == nullptr) return;
  Fields of_format(*format, "response_format.");
  const auto type = of_format.choice("type", {"text", "json_object", "json_schema"});
  if (!type) throw bad_field("response_format.type", "text, json_object or json_schema", "nothing");
  if (type == "json_object") job.grammar = JsonGrammar::any_object();
  if (type == "json_schema") {
    const Json* given = of_format.object("json_schema");
    if (given == nullptr) throw bad_field("response_format.json_schema", "an object", "nothing");
    Fields of_schema(*given, "response_format.json_schema.");
    of_schema.accept({"name", "description", "strict"});  // it is always kept to
    const Json* schema = of_schema.value("schema");
    const std::string path = of_schema.path_of("schema");
    if (schema == nullptr) throw bad_field(path, "a JSON schema", "nothing");
    of_schema.finish(unknown);
    try {
      job.grammar = JsonGrammar::from_schema(*schema);
    } catch (const SchemaError& error) {
      throw ApiError{400,
                     "the schema cannot be kept to (" + path + " at '" + error.pointer() +
                         "': " + error.what() + ")",
                     path, "invalid_schema"};
    }
  }
  of_format.finish(unknown);
  if (job.grammar && !job.stop.empty())
    throw bad_field("stop", "nothing with a response_format: it would cut the JSON", "stop texts");
}

void read_delivery(Fields& fields, ApiRequest& request, const ServedModel& model,
                   UnknownFields& unknown) {
  request.choices = fields.integer("n", 1, model.slots).value_or(1);
  request.stream = fields.boolean("stream").value_or(false);
  request.timings_per_token = fields.boolean("timings_per_token").value_or(false);
  if (const Json* options = fields.object("stream_options")) {
    if (!request.stream)
      fields.refuse("stream_options", "nothing without \"stream\": true", *options);
    Fields of_stream(*options, fields.path_of("stream_options."));
    request.include_usage = of_stream.boolean("include_usage").value_or(false);
    of_stream.accept({"include_obfuscation"});
    of_stream.finish(unknown);
  }
  fields.accept({"user", "metadata", "store", "service_tier", "prompt_cache_key",
                 "prompt_cache_retention", "safety_identifier", "verbosity", "prediction"});
}

void finish_request(const Fields& fields, UnknownFields& unknown,
                    std::vector<std::string>& ignored) {
  fields.finish(unknown);
  ignored = fields.accepted();
  ignored.insert(ignored.end(), unknown.names.begin(), unknown.names.end());
}

void require_context(const std::vector<int32_t>& ids, const char* param, const ServedModel& model) {
  if (std::ssize(ids) <= model.context) return;
  throw ApiError{400,
                 fmt::format("the prompt is longer than the context (expected at most {} tokens, "
                             "found {})",
                             model.context, ids.size()),
                 param, "context_length_exceeded"};
}

int64_t prompt_room(int64_t max_tokens, const ServedModel& model) {
  const int64_t wanted = max_tokens < 0 ? model.context / 4 : max_tokens;
  // The last token of an answer is not read.
  return model.context - std::max<int64_t>(std::min(wanted, model.context / 2) - 1, 0);
}

// Room for the shortest text of the grammar: a token a byte, at the worst.
static void require_room(const Job& job, int64_t prompt, const char* param,
                         const ServedModel& model) {
  const int64_t least = job.grammar->least_bytes();
  if (job.max_tokens >= 0 && job.max_tokens < least)
    throw bad_field("max_tokens", fmt::format("at least {} for that schema", least),
                    std::to_string(job.max_tokens));
  if (prompt + least - 1 > model.context)
    throw ApiError{400,
                   fmt::format("prompt and answer are longer than the context (expected at most {} "
                               "tokens, found {} and at least {})",
                               model.context, prompt, least),
                   param, "context_length_exceeded"};
}

void make_jobs(ApiRequest& request, const Job& job, std::vector<Prompt> prompts, const char* param,
               const ServedModel& model) {
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    require_context(prompts[p].ids, param, model);
    if (job.grammar) require_room(job, std::ssize(prompts[p].ids), param, model);
    for (int64_t choice = 0; choice < request.choices; ++choice) {
      Job one = job;
      one.prompt = prompts[p].ids;
      one.prompt_index = static_cast<int64_t>(p);
      one.sampling.seed += static_cast<uint64_t>(choice);
      request.jobs.push_back(std::move(one));
    }
    request.prompts.push_back(std::move(prompts[p].text));
  }
}

}  // namespace crumb::serve
