// The tokenizer of a model file's vocabulary.
#pragma once
#include <memory>

#include "models/vocab.h"
#include "tokenizer/tokenizer.h"

namespace crumb {

// Throws std::invalid_argument as make_tokenizer does.
std::unique_ptr<tokenizer::Tokenizer> tokenizer_of(const models::Vocab& vocab);

}  // namespace crumb
