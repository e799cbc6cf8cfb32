// Chat templates: the Jinja subset that real templates use, rendered as Jinja2 does (with
// trim_blocks and lstrip_blocks, as transformers sets them), within budgets.
#pragma once
#include <cstdint>
#include <ctime>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

// Syntax, type, budget or raise_exception error at a place of the template.
class TemplateError : public std::runtime_error {
 public:
  TemplateError(const std::string& what, int line, int column);
  int line() const { return line_; }      // from 1
  int column() const { return column_; }  // from 1, in bytes

 private:
  int line_, column_;
};

struct TemplateBudget {
  int64_t depth = 128;        // nesting of expressions and blocks, and of macro calls
  int64_t steps = 1'000'000;  // nodes evaluated, items walked, and 128 bytes of string work each
  int64_t output = 4 << 20;   // bytes rendered, and of any string value
  int64_t range = 100'000;    // items of range()
};

class ChatTemplate {
 public:
  // Throws TemplateError.
  static ChatTemplate parse(std::string_view source, const TemplateBudget& budget = {});
  // `variables` is a JSON object: messages, add_generation_prompt, bos_token, eos_token, tools, ...
  // (ordered, as templates print dicts in the order they came in). Text of the template itself and
  // bos_token, eos_token, unk_token, pad_token come back as literal segments; every string from
  // other variables as non-literal ones, however it was transformed. Neighbouring segments differ
  // in `literal`, none is empty. `now` is the time strftime_now() tells, in the local time zone;
  // the clock's if left out. Throws TemplateError.
  std::vector<Segment> render(const nlohmann::ordered_json& variables) const;
  std::vector<Segment> render(const nlohmann::ordered_json& variables, std::time_t now) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
  TemplateBudget budget_;
};

// The segments' texts joined.
std::string joined(const std::vector<Segment>& segments);

}  // namespace crumb::tokenizer
