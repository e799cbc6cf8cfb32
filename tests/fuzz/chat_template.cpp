// Chat templates, parsed and rendered within small budgets.
#include "tokenizer/chat_template.h"

#include <nlohmann/json.hpp>

#include "tests/fuzz/fuzz.h"

namespace {

constexpr const char* kVariables = R"({
  "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true, "n": 3, "x": 2.5,
  "messages": [{"role": "system", "content": " Be brief. "},
               {"role": "user", "content": [{"type": "text", "text": "Gr\u00fc\u00dfe <|x|>"}]},
               {"role": "assistant", "content": null, "tool_calls": [
                 {"type": "function", "function": {"name": "f", "arguments": {"a": [1, true]}}}]},
               {"role": "tool", "content": "{}"}],
  "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]})";
constexpr std::time_t kNow = 1700000000;

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace crumb;
  static const auto variables = nlohmann::ordered_json::parse(kVariables);
  constexpr tokenizer::TemplateBudget kBudget = {
      .depth = 64, .steps = 5'000, .output = 1 << 14, .range = 200};
  try {
    const auto program =
        tokenizer::ChatTemplate::parse({reinterpret_cast<const char*>(data), size}, kBudget);
    const std::vector<tokenizer::Segment> segments = program.render(variables, kNow);
    bool literal = true;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      if (segments[i].text.empty()) fuzz::finding("an empty segment");
      if (i > 0 && segments[i].literal == literal) fuzz::finding("segments that are not joined");
      literal = segments[i].literal;
    }
    if (tokenizer::joined(segments).size() > static_cast<std::size_t>(kBudget.output))
      fuzz::finding("more output than the budget allows");
  } catch (const tokenizer::TemplateError& error) {
    if (error.line() < 1 || error.column() < 1) fuzz::finding("an error without a place");
  }
  return 0;
}
