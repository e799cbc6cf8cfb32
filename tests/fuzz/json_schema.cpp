// Schemas, and walks through what they allow: the first line is the schema, each byte behind it a
// choice. What was written and may end is JSON; what is left to write never grows without end.
#include <algorithm>

#include "engine/json_grammar.h"
#include "engine/json_matcher.h"
#include "engine/vocab_tokenizer.h"
#include "models/json.h"
#include "models/tiny_model.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace crumb;
using Json = nlohmann::ordered_json;

constexpr int kMostOpened = 128;
constexpr int64_t kMostTokens = 256;  // of a walk: each lists the vocabulary

// The server's reader of JSON knows a depth; here it is enough to count what is opened.
bool shallow(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return c == '[' || c == '{'; }) <=
         kMostOpened;
}

std::shared_ptr<const JsonGrammar> grammar_of(const Json& schema, bool tools) {
  try {
    if (!tools) return JsonGrammar::from_schema(schema);
    return JsonGrammar::tool_calls({{"f", &schema}, {"g", nullptr}}, {true, false});
  } catch (const SchemaError& error) {
    const std::string_view what = error.what();
    if (what.empty()) fuzz::finding("a refusal without a reason");
    if (!error.pointer().empty() && !error.pointer().starts_with('/'))
      fuzz::finding("a place that is no pointer: " + error.pointer());
    return nullptr;
  }
}

struct Words {
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::shared_ptr<const TokenTrie> trie;
};

// A token that may come next, -1 if there is none. A list of all takes long where many may, and
// there the first tried will mostly do; every eighth choice takes from the list all the same.
int32_t pick(JsonMatcher& matcher, const Words& words, uint8_t choice, std::vector<int32_t>& ids) {
  const auto size = static_cast<int32_t>(words.tokenizer->size());
  for (int32_t tried = 0; choice % 8 != 0 && tried < 4; ++tried) {
    const int32_t id = (choice * 37 + tried) % size;
    if (matcher.allows(id)) return id;
  }
  if (!matcher.list(ids)) {
    ids.clear();
    for (int32_t id = 0; id < size; ++id)
      if (matcher.allows(id)) ids.push_back(id);
  }
  return ids.empty() ? -1 : ids[choice % ids.size()];
}

void walk(const std::shared_ptr<const JsonGrammar>& grammar, const Words& words,
          std::span<const uint8_t> choices, bool tools) {
  JsonMatcher matcher(grammar, *words.tokenizer, words.trie, {0});
  const int64_t least = grammar->least_bytes();
  if (least >= kMostTokens) return;
  choices = choices.first(std::min(choices.size(), static_cast<std::size_t>(kMostTokens - least)));
  int64_t budget = least + static_cast<int64_t>(choices.size());
  std::string text;
  std::vector<int32_t> ids;
  for (std::size_t i = 0; budget > 0; ++i, --budget) {
    if (matcher.must_end()) break;
    matcher.set_budget(budget);
    if (matcher.need() > budget) fuzz::finding("a text that cannot be finished any more");
    const int32_t id = pick(matcher, words, i < choices.size() ? choices[i] : 0, ids);
    if (id < 0) fuzz::finding("nowhere to go on after: " + text);
    if (!matcher.accept(id)) fuzz::finding("an allowed token is not taken");
    if (id == 0) break;
    text += words.tokenizer->bytes(id);
  }
  if (!matcher.may_end()) fuzz::finding("not finished within its tokens: " + text);
  if (tools) {
    if (!text.starts_with(kToolCallBegin) || !text.ends_with(kToolCallEnd))
      fuzz::finding("no call: " + text);
    text = text.substr(11, text.size() - 23);
  }
  if (Json::parse(text, nullptr, false).is_discarded()) fuzz::finding("no JSON: " + text);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  static const Words words = [] {
    Words made{tokenizer_of(models::tiny_model().vocab), nullptr};
    made.trie = std::make_shared<TokenTrie>(*made.tokenizer);
    return made;
  }();
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::string_view text = all.substr(0, all.find('\n'));
  if (!shallow(text)) return 0;
  const Json schema = Json::parse(text, nullptr, false);
  if (schema.is_discarded()) return 0;
  const auto choices = std::span(data, size).subspan(std::min(size, text.size() + 1));
  // One of the two an input: a walk takes nearly all the time.
  const bool tools = size % 2 == 1;
  if (const auto grammar = grammar_of(schema, tools)) walk(grammar, words, choices, tools);
  return 0;
}
