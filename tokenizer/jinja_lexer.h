// Template source into tokens, with Jinja's white space control (trim_blocks and lstrip_blocks on).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja_ast.h"

namespace crumb::tokenizer::jinja {

enum class TokenKind {
  kData,        // text between the tags
  kBlockBegin,  // {%
  kBlockEnd,
  kPrintBegin,  // {{
  kPrintEnd,
  kName,
  kString,  // text unescaped
  kInteger,
  kFloat,
  kOperator,  // text is the operator
  kEnd
};

struct Token {
  TokenKind kind;
  Place place;
  std::string text;
  int64_t integer = 0;
  double number = 0;
};

// "\r\n" and "\r" become "\n"; one line end at the end of the template is dropped. The last token
// is kEnd. Throws TemplateError.
std::vector<Token> tokenize(std::string_view source);

}  // namespace crumb::tokenizer::jinja
