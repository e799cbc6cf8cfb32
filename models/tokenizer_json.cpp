// tokenizer.json of the Hugging Face tokenizers library, as far as the families that this program
// runs use it.
#include <algorithm>
#include <unordered_map>

#include "models/errors.h"
#include "models/json_text.h"
#include "models/text.h"
#include "models/tokenizer_files.h"

namespace crumb::models {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxJsonBytes = 128 << 20;
constexpr std::string_view kSpaceMark = "\u2581";

constexpr KnownSplit kSplits[] = {
    {"gpt-2", "", false, false},
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, false},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, true},
    {"smollm", "", true, false},
};

// Null instead of nothing, so that files may leave a field out.
const json& member(const json& object, const char* name) {
  static const json null;
  const auto found = object.is_object() ? object.find(name) : object.end();
  return object.is_object() && found != object.end() ? *found : null;
}

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool flag(const json& object, const char* name, bool otherwise) {
  const json& value = member(object, name);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

// The steps of a pre-tokenizer or normalizer: one, or those of a Sequence.
std::vector<const json*> steps_of(const json& stage, const char* list) {
  std::vector<const json*> steps;
  if (stage.is_null()) return steps;
  const json& inner = member(stage, list);
  if (text_of(member(stage, "type")) != "Sequence" || !inner.is_array()) return {&stage};
  for (const json& step : inner) steps.push_back(&step);
  return steps;
}

class Reader {
 public:
  Reader(std::string_view text, const std::string& file)
      : place_{file, "tokenizer.json"},
        root_(parse_json_object(text, place_, kMaxJsonBytes)),
        model_(member(root_, "model")) {}

  Vocab read() {
    const std::string type = text_of(member(model_, "type"));
    if (type != "BPE")
      json_fail(place_, "model.type", "BPE (use tokenizer.model for other kinds)", printable(type));
    read_tokens();
    read_added();
    for (std::size_t id = 0; id < seen_.size(); ++id)
      if (!seen_[id]) json_fail(place_, "model.vocab", "dense ids", "none " + std::to_string(id));
    read_merges();
    const auto splits = steps_of(member(root_, "pre_tokenizer"), "pretokenizers");
    const bool byte_level = std::any_of(splits.begin(), splits.end(), [](const json* step) {
      return text_of(member(*step, "type")) == "ByteLevel";
    });
    if (byte_level)
      read_byte_level(splits);
    else
      read_sentencepiece(splits);
    read_bos();
    add_known_stops(vocab_);
    validate(vocab_, place_.file);
    return std::move(vocab_);
  }

 private:
  void put(const std::string& text, int64_t id, TokenType type) {
    // Ids are dense: one beyond the number of tokens would only make the table large.
    if (id < 0 || id >= std::min(kMaxVocab, listed_))
      json_fail(place_, "token id",
                "dense ids, 0.." + std::to_string(std::min(kMaxVocab, listed_) - 1),
                std::to_string(id));
    const auto at = static_cast<std::size_t>(id);
    if (at >= vocab_.tokens.size()) {
      vocab_.tokens.resize(at + 1);
      vocab_.types.resize(at + 1, TokenType::kNormal);
      seen_.resize(at + 1, false);
    }
    if (seen_[at] && vocab_.tokens[at] != text)
      json_fail(place_, "token id", "each id once", std::to_string(id) + " twice");
    vocab_.tokens[at] = text;
    vocab_.types[at] = type;
    seen_[at] = true;
    ids_.insert_or_assign(text, static_cast<int32_t>(id));
  }

  int64_t id_of(const json& value) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(kMaxVocab))
      json_fail(place_, "token id", "0.." + std::to_string(kMaxVocab - 1), "another value");
    return value.get<int64_t>();
  }

  void read_tokens() {
    const json& vocab = member(model_, "vocab");
    if (!vocab.is_object()) json_fail(place_, "model.vocab", "an object", vocab.type_name());
    listed_ = std::ssize(vocab) + std::ssize(member(root_, "added_tokens"));
    for (const auto& [text, id] : vocab.items()) put(text, id_of(id), TokenType::kNormal);
  }

  void read_added() {
    const json& added = member(root_, "added_tokens");
    if (added.is_null()) return;
    if (!added.is_array()) json_fail(place_, "added_tokens", "an array", added.type_name());
    for (const json& token : added) {
      if (!token.is_object()) json_fail(place_, "added_tokens", "objects", token.type_name());
      put(json_string(token, "content", place_), id_of(member(token, "id")),
          flag(token, "special", false) ? TokenType::kControl : TokenType::kUserDefined);
    }
  }

  // "left right", or [left, right].
  void read_merges() {
    const json& merges = member(model_, "merges");
    if (!merges.is_array() || merges.size() > static_cast<std::size_t>(kMaxMerges))
      json_fail(place_, "model.merges", "an array", merges.type_name());
    for (const json& merge : merges) {
      std::string left, right;
      if (merge.is_string()) {
        const auto text = merge.get<std::string>();
        const auto space = text.find(' ', 1);
        if (space != std::string::npos) {
          left = text.substr(0, space);
          right = text.substr(space + 1);
        }
      } else if (merge.is_array() && merge.size() == 2) {
        left = text_of(merge[0]);
        right = text_of(merge[1]);
      }
      std::array<int32_t, 3> triple{};
      const std::string parts[] = {left, right, left + right};
      for (std::size_t i = 0; i < 3; ++i) {
        const auto found = ids_.find(parts[i]);
        if (parts[i].empty() || found == ids_.end())
          json_fail(place_, "merge " + std::to_string(vocab_.merges.size()),
                    "two tokens whose join is a token", printable(json_dump(merge)));
        triple[i] = found->second;
      }
      vocab_.merges.push_back(triple);
    }
  }

  void read_byte_level(const std::vector<const json*>& splits) {
    vocab_.model = "gpt2";
    const auto type = [&](std::size_t i) { return text_of(member(*splits[i], "type")); };
    const auto normal = steps_of(member(root_, "normalizer"), "normalizers");
    const bool nfc = normal.size() == 1 && text_of(member(*normal[0], "type")) == "NFC";
    const bool own_split = flag(*splits.back(), "use_regex", true);
    if (flag(*splits.back(), "add_prefix_space", false))
      json_fail(place_, "pre_tokenizer.add_prefix_space", "false (true is not supported)", "true");
    if (splits.size() == 1 && own_split) {
      vocab_.pre = "gpt-2";
    } else if (splits.size() == 2 && own_split && type(0) == "Digits" &&
               flag(*splits[0], "individual_digits", false)) {
      vocab_.pre = "smollm";
    } else if (splits.size() == 2 && !own_split && type(0) == "Split") {
      const std::string regex = text_of(member(member(*splits[0], "pattern"), "Regex"));
      for (const KnownSplit& split : kSplits)
        if (!regex.empty() && split.regex == regex) vocab_.pre = split.name;
    }
    if (vocab_.pre.empty())
      json_fail(place_, "pre_tokenizer", "the splits of GPT-2, SmolLM, Qwen2 or Llama 3",
                printable(json_dump(member(root_, "pre_tokenizer")), 400));
    const bool wanted_nfc = find_split(vocab_.pre)->nfc;
    if (normal.size() != (wanted_nfc ? 1u : 0u) || nfc != wanted_nfc)
      json_fail(place_, "normalizer", wanted_nfc ? "NFC" : "none",
                printable(json_dump(member(root_, "normalizer")), 200));
  }

  void read_sentencepiece(const std::vector<const json*>& splits) {
    vocab_.model = "llama";
    vocab_.pre = "default";
    bool marked = false;
    for (const json* step : steps_of(member(root_, "normalizer"), "normalizers")) {
      const std::string type = text_of(member(*step, "type"));
      if (type == "Prepend" && text_of(member(*step, "prepend")) == kSpaceMark)
        vocab_.add_space_prefix = true;
      else if (type == "Replace" && text_of(member(member(*step, "pattern"), "String")) == " " &&
               text_of(member(*step, "content")) == kSpaceMark)
        marked = true;
      else
        json_fail(place_, "normalizer", "Prepend and Replace of spaces", printable(type));
    }
    for (const json* step : splits) {
      const std::string type = text_of(member(*step, "type"));
      if (type == "Metaspace") {
        marked = true;
        const std::string scheme = text_of(member(*step, "prepend_scheme"));
        vocab_.add_space_prefix =
            scheme.empty() ? flag(*step, "add_prefix_space", true) : scheme != "never";
      } else if (type != "Split" || text_of(member(member(*step, "pattern"), "String")) != " ") {
        // (A split at spaces after their replacement, as Gemma has it, never finds one.)
        json_fail(place_, "pre_tokenizer", "ByteLevel or Metaspace", printable(type));
      }
    }
    if (!marked || !flag(model_, "byte_fallback", false))
      json_fail(place_, "model", "byte-level BPE, or SentencePiece's with byte fallback",
                "another BPE");
    vocab_.scores.assign(vocab_.tokens.size(), 0.0f);
    for (std::size_t rank = vocab_.merges.size(); rank-- > 0;)
      vocab_.scores[static_cast<std::size_t>(vocab_.merges[rank][2])] = -static_cast<float>(rank);
    vocab_.merges.clear();
    for (std::size_t id = 0; id < vocab_.tokens.size(); ++id) {
      const std::string& text = vocab_.tokens[id];
      if (text.size() == 6 && text.starts_with("<0x") && text.ends_with('>'))
        vocab_.types[id] = TokenType::kByte;
    }
    const auto unknown = ids_.find(text_of(member(model_, "unk_token")));
    if (unknown == ids_.end()) json_fail(place_, "model.unk_token", "a token", "none");
    vocab_.unk = unknown->second;
    vocab_.types[static_cast<std::size_t>(vocab_.unk)] = TokenType::kUnknown;
  }

  // The post-processor's template may start with a token.
  void read_bos() {
    for (const json* step : steps_of(member(root_, "post_processor"), "processors")) {
      const json& single = member(*step, "single");
      if (text_of(member(*step, "type")) != "TemplateProcessing" || !single.is_array() ||
          single.empty())
        continue;
      const auto found = ids_.find(text_of(member(member(single[0], "SpecialToken"), "id")));
      if (found == ids_.end()) continue;
      vocab_.bos = found->second;
      vocab_.add_bos = true;
    }
  }

  JsonPlace place_;
  const json root_;
  const json& model_;
  Vocab vocab_;
  int64_t listed_ = 0;  // entries of the vocabulary and added tokens
  std::vector<bool> seen_;
  std::unordered_map<std::string, int32_t> ids_;
};

}  // namespace

const KnownSplit* find_split(std::string_view name) {
  for (const KnownSplit& split : kSplits)
    if (split.name == name) return &split;
  return nullptr;
}

Vocab read_tokenizer_json(std::string_view text, const std::string& file) {
  return Reader(text, file).read();
}

}  // namespace crumb::models
