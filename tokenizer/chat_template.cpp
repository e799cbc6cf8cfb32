#include "tokenizer/chat_template.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tokenizer/jinja_eval.h"
#include "tokenizer/jinja_parser.h"

namespace crumb::tokenizer {

namespace {

// Variables that the model's file gives, not the user.
constexpr std::string_view kLiteralVariables[] = {"bos_token", "eos_token", "unk_token",
                                                  "pad_token"};

bool is_literal(const std::string& name) {
  return std::find(std::begin(kLiteralVariables), std::end(kLiteralVariables), name) !=
         std::end(kLiteralVariables);
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Body body;
};

TemplateError::TemplateError(const std::string& what, int line, int column)
    : std::runtime_error(what + " (template line " + std::to_string(line) + ", column " +
                         std::to_string(column) + ")"),
      line_(line),
      column_(column) {}

ChatTemplate ChatTemplate::parse(std::string_view source, const TemplateBudget& budget) {
  ChatTemplate out;
  out.program_ = std::make_shared<const Program>(Program{jinja::parse(source, budget.depth)});
  out.budget_ = budget;
  return out;
}

std::vector<Segment> ChatTemplate::render(const nlohmann::ordered_json& variables,
                                          std::time_t now) const {
  jinja::Evaluator evaluator(budget_, now);
  try {
    if (!variables.is_object()) jinja::fail("the variables are not a JSON object");
    for (auto it = variables.begin(); it != variables.end(); ++it) {
      evaluator.set_variable(it.key(), jinja::from_json(it.value(), is_literal(it.key())));
    }
    const jinja::Text text = evaluator.run(program_->body);
    std::vector<Segment> segments;
    std::size_t begin = 0;
    for (const auto& run : text.runs()) {
      segments.push_back({text.bytes().substr(begin, run.end - begin), run.literal});
      begin = run.end;
    }
    return segments;
  } catch (const jinja::Failure& failure) {
    const jinja::Place place = evaluator.place();
    throw TemplateError(failure.what(), place.line, place.column);
  }
}

std::vector<Segment> ChatTemplate::render(const nlohmann::ordered_json& variables) const {
  return render(variables, std::time(nullptr));
}

std::string joined(const std::vector<Segment>& segments) {
  std::string out;
  for (const Segment& segment : segments) out += segment.text;
  return out;
}

}  // namespace crumb::tokenizer
