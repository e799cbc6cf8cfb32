#include "tokenizer/tokenizer.h"

#include <utility>

#include "tokenizer/bpe.h"
#include "tokenizer/reject.h"
#include "tokenizer/sentencepiece.h"

namespace crumb::tokenizer {
namespace {

// What holds for every kind of model; the kinds check the rest.
void check_common(const TokenizerData& data) {
  const auto count = std::ssize(data.tokens);
  if (count == 0) reject("empty vocabulary", "tokens", "at least one", "none");
  if (count > INT32_MAX) reject("vocabulary too large", "tokens", "int32 ids", "more");
  if (std::ssize(data.types) != count) {
    reject("token types do not fit the vocabulary", "types", std::to_string(count),
           std::to_string(data.types.size()));
  }
  for (std::size_t id = 0; id < data.types.size(); ++id) {
    const int type = static_cast<int>(data.types[id]);
    if (type < static_cast<int>(TokenType::kNormal) || type > static_cast<int>(TokenType::kByte)) {
      reject("unknown token type", "types[" + std::to_string(id) + "]", "1 to 6",
             std::to_string(type));
    }
  }
  if (!data.scores.empty() && std::ssize(data.scores) != count) {
    reject("scores do not fit the vocabulary", "scores", std::to_string(count) + " or none",
           std::to_string(data.scores.size()));
  }
  const std::pair<const char*, int32_t> ids[] = {{"bos", data.bos},
                                                 {"eos", data.eos},
                                                 {"eot", data.eot},
                                                 {"unk", data.unk},
                                                 {"pad", data.pad}};
  for (const auto& [name, id] : ids) {
    if (id < -1 || id >= count) {
      reject("token id out of range", name, "-1 to " + std::to_string(count - 1),
             std::to_string(id));
    }
  }
  if (data.add_bos && data.bos < 0) reject("add_bos without a bos token", "bos", "an id", "-1");
}

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool literal,
                                       EncodeReport* report) const {
  const Segment segment{std::string(text), literal};
  return encode(std::span<const Segment>(&segment, 1), report);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool special) const {
  std::string out;
  for (const int32_t id : ids) {
    if (special || !is_control(id)) out += bytes(id);
  }
  return out;
}

bool Tokenizer::is_control(int32_t id) const {
  return id >= 0 && id < size() && data().types[id] == TokenType::kControl;
}

std::unique_ptr<Tokenizer> make_tokenizer(TokenizerData data) {
  check_common(data);
  if (data.model == "gpt2") return make_bpe_tokenizer(std::move(data));
  if (is_sentencepiece(data.model)) return make_sentencepiece_tokenizer(std::move(data));
  reject("unknown kind of model", "model", "gpt2, llama or t5", "'" + data.model + "'");
}

}  // namespace crumb::tokenizer
