// The text a recipe names, as windows of token ids.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "models/source.h"
#include "quant/train/text_script.h"
#include "quant/train/token_data.h"
#include "quant/train/train_recipe.h"

namespace crumb::quant::train {

struct TrainText {
  TokenData data;                    // may be empty if all is generated
  std::vector<int32_t> kept_back;    // windows never trained on; may be empty
  std::optional<TextScript> script;  // if the recipe generates
  std::string hash;                  // of all three
};

// Token files as they are; texts and chats through the teacher's tokenizer and template
// (quant/corpus.h), documents in an order drawn by the recipe's seed. Without a token file of
// kept-back windows these are the last of the texts: at most an eighth of each, a multiple of the
// batch if there are that many. Throws IoError; FormatError for data without a window, and for
// fewer kept-back windows in the file than the recipe says; what script_from_json() and
// require_prefixes_fit() throw.
TrainText read_train_text(const TrainRecipe& recipe, const models::SourceModel& teacher);

// What the recipe's paths stand for: a hash of teacher, start, masters (a model's hash, empty if
// the teacher's weights are the masters) and text.
std::string inputs_hash(const models::SourceModel& teacher, const models::SourceModel& start,
                        const std::string& masters, const TrainText& text);

}  // namespace crumb::quant::train
