// A model file's tokenizer alone, without loading the weights.
#pragma once
#include <memory>

#include "models/vocab.h"
#include "tokenizer/tokenizer.h"

namespace crumb::apps {

// Throws std::invalid_argument as make_tokenizer does.
std::unique_ptr<tokenizer::Tokenizer> tokenizer_of(const models::Vocab& vocab);

}  // namespace crumb::apps
