// What a token costs that is chosen under a schema, against one that is chosen freely; with the
// vocabulary of a real model: crumb_bench_constrained MODEL [Google Benchmark's options]. The
// logits are random, so that what is written is any valid text.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>

#include "engine/engine.h"
#include "engine/json_matcher.h"
#include "engine/rng.h"
#include "engine/sampler.h"
#include "models/json.h"

namespace crumb {
namespace {

using Json = nlohmann::ordered_json;

struct Case {
  const char *name, *schema;  // null: free; "tools": text in which a function may be called
};
constexpr Case kCases[] = {
    {"free", nullptr},
    {"any_object", "{}"},
    {"strings",
     R"({"type":"object","properties":{"name":{"type":"string"},"text":{"type":"string","minLength":200}},"required":["name","text"]})"},
    {"record",
     R"({"type":"object","properties":{"name":{"type":"string","maxLength":20},"age":{"type":"integer","minimum":0,"maximum":150},
      "score":{"type":"number"},"tags":{"type":"array","items":{"enum":["red","green","blue"]},"maxItems":5}},
      "required":["name","age","score","tags"]})"},
    {"pattern", R"({"type":"array","items":{"type":"string","pattern":"^[A-Za-z ]{5,60}$"}})"},
    {"date_time", R"({"type":"array","items":{"type":"string","format":"date-time"}})"},
    {"recursive",
     R"({"type":"object","properties":{"v":{"type":"string"},"next":{"anyOf":[{"type":"null"},{"$ref":"#"}]}},"required":["v","next"]})"},
    {"tools", "tools"},
};
constexpr int kRows = 32;  // of logits, in turn

struct Model {
  std::shared_ptr<const Engine> engine;
  std::shared_ptr<const TokenTrie> trie;
  std::vector<std::vector<float>> logits;
};

Model load(const char* path) {
  LoadOptions options;
  options.pin = false;
  options.threads = 1;
  Model model{Engine::load(path, options), nullptr, {}};
  model.trie = std::make_shared<TokenTrie>(model.engine->tokenizer());
  for (uint64_t row = 0; row < kRows; ++row) {
    auto& values = model.logits.emplace_back();
    for (int64_t i = 0; i < model.engine->config().vocab; ++i)
      values.push_back(
          static_cast<float>(-3 * std::log(1e-9 + uniform(row, static_cast<uint64_t>(i)))));
  }
  return model;
}

std::shared_ptr<const JsonGrammar> grammar_of(const char* schema) {
  if (schema == nullptr) return nullptr;
  if (std::string_view(schema) == "tools")
    return JsonGrammar::tool_calls({{"f", nullptr}, {"g", nullptr}}, {});
  return std::string_view(schema) == "{}" ? JsonGrammar::any_object()
                                          : JsonGrammar::from_schema(Json::parse(schema));
}

void token(benchmark::State& state, const Model& model, const Case& one) {
  const auto grammar = grammar_of(one.schema);
  Sampler sampler({}, model.engine->config().vocab);
  std::unique_ptr<JsonMatcher> matcher;
  std::size_t row = 0;
  int64_t written = 0;
  constexpr int64_t kTokens = 300;
  for (auto unused : state) {
    const auto& logits = model.logits[row++ % kRows];
    if (grammar && (!matcher || matcher->must_end() || written == kTokens)) {
      matcher = std::make_unique<JsonMatcher>(grammar, model.engine->tokenizer(), model.trie,
                                              model.engine->stop_tokens());
      written = 0;
    }
    int32_t id = 0;
    if (matcher) {
      matcher->set_budget(2 * kTokens - written++);
      id = sampler.sample(logits, {}, {}, *matcher);
      if (id < 0 || !matcher->accept(id)) state.SkipWithError("no token fits");
      const auto& stop = model.engine->stop_tokens();
      if (std::binary_search(stop.begin(), stop.end(), id)) matcher.reset();
    } else {
      id = sampler.sample(logits, {});
    }
    benchmark::DoNotOptimize(id);
  }
}

}  // namespace
}  // namespace crumb

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc != 2) {
    std::fprintf(stderr, "usage: crumb_bench_constrained MODEL\n");
    return 2;
  }
  try {
    const crumb::Model model = crumb::load(argv[1]);
    for (const crumb::Case& one : crumb::kCases)
      benchmark::RegisterBenchmark(one.name, [&](benchmark::State& state) {
        crumb::token(state, model, one);
      })->Unit(benchmark::kMillisecond);
    benchmark::RunSpecifiedBenchmarks();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "crumb_bench_constrained: %s\n", error.what());
    return 1;
  }
  return 0;
}
