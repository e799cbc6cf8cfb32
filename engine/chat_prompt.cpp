#include "engine/chat_prompt.h"

#include <string>

#include "models/errors.h"
#include "models/json.h"

namespace crumb {
namespace {

FormatError template_failure(const tokenizer::TemplateError& error) {
  return FormatError("chat template: " + std::string(error.what()) + " (line " +
                         std::to_string(error.line()) + ", column " +
                         std::to_string(error.column()) + ")",
                     "crumb inspect --render shows the template; crumb run --raw does without it");
}

tokenizer::ChatTemplate parse_template(const Engine& engine) {
  if (engine.chat_template().empty())
    throw FormatError("the model has no chat template (" + engine.info().path + ")",
                      "crumb run --raw continues a text without one");
  try {
    return tokenizer::ChatTemplate::parse(engine.chat_template());
  } catch (const tokenizer::TemplateError& error) {
    throw template_failure(error);
  }
}

std::string token_text(const Engine& engine, int32_t id) {
  return id < 0 ? std::string() : std::string(engine.tokenizer().bytes(id));
}

}  // namespace

ChatPrompt::ChatPrompt(std::shared_ptr<const Engine> engine)
    : engine_(std::move(engine)), template_(parse_template(*engine_)) {}

std::vector<tokenizer::Segment> ChatPrompt::render(nlohmann::ordered_json variables) const {
  variables["bos_token"] = token_text(*engine_, engine_->tokenizer().data().bos);
  variables["eos_token"] = token_text(*engine_, engine_->tokenizer().data().eos);
  try {
    return template_.render(variables);
  } catch (const tokenizer::TemplateError& error) {
    throw template_failure(error);
  }
}

}  // namespace crumb
