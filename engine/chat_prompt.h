// Messages through a model's chat template to what the model reads.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "engine/engine.h"
#include "tokenizer/chat_template.h"

namespace crumb {

// Immutable; thread-safe.
class ChatPrompt {
 public:
  // Parses the model's template. Throws FormatError if it has none, or with the template's line and
  // column.
  explicit ChatPrompt(std::shared_ptr<const Engine> engine);

  // `variables`: messages (role, content, ..), add_generation_prompt, tools, ..; the names of the
  // special tokens are added. Only the template's own text comes back as literal segments. Throws
  // FormatError with the template's line and column.
  std::vector<tokenizer::Segment> render(nlohmann::ordered_json variables) const;

 private:
  std::shared_ptr<const Engine> engine_;
  tokenizer::ChatTemplate template_;
};

}  // namespace crumb
