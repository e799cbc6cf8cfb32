#include "tokenizer/sentencepiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sentencepiece_processor.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "tests/tokenizer/linear.h"
#include "tests/tokenizer/vocabulary.h"
#include "tokenizer/sentencepiece_check.h"
#include "tokenizer/sentencepiece_normalizer.h"
#include "tokenizer/sentencepiece_proto.h"

namespace crumb::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

void add_piece(TokenizerData& data, const std::string& text, float score,
               TokenType type = TokenType::kNormal) {
  add_token(data, text, type);
  data.scores.push_back(score);
}

// <unk>, <s>, <tool>, all bytes, then pieces of "a", "b", U+2581 and their merges.
TokenizerData small_model(const std::string& model = "llama") {
  TokenizerData data;
  data.model = model;
  data.pre = "default";
  add_piece(data, "<unk>", 0, TokenType::kUnknown);
  add_piece(data, "<s>", 0, TokenType::kControl);
  add_piece(data, "<tool>", 0, TokenType::kUserDefined);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    add_piece(data, text, 0, TokenType::kByte);
  }
  float score = 0;
  for (const char* text : {"ab", "\u2581a", "\u2581ab", "\u2581", "a", "b"})
    add_piece(data, text, score -= 1);
  data.unk = 0;
  data.bos = 1;
  data.sentencepiece.dummy_prefix = true;
  return data;
}

std::vector<std::string> pieces(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  std::vector<std::string> out;
  for (const int32_t id : ids)
    out.push_back(tokenizer.data().tokens.at(static_cast<std::size_t>(id)));
  return out;
}

std::vector<std::string> pieces(const TokenizerData& data, const std::string& text,
                                bool literal = false) {
  const auto tokenizer = make_tokenizer(data);
  return pieces(*tokenizer, tokenizer->encode(text, literal));
}

TEST(SentencePiece, MergesByScore) {
  EXPECT_THAT(pieces(small_model(), "ab b"), ElementsAre("\u2581ab", "\u2581", "b"));
  EXPECT_THAT(pieces(small_model("t5"), "ab b"), ElementsAre("\u2581ab", "\u2581", "b"));
}

TEST(SentencePiece, WritesWhatHasNoPieceAsBytes) {
  EXPECT_THAT(pieces(small_model(), "\u00E9"), ElementsAre("\u2581", "<0xC3>", "<0xA9>"));
  // A malformed byte is U+FFFD.
  EXPECT_THAT(pieces(small_model(), "\xFF"), ElementsAre("\u2581", "<0xEF>", "<0xBF>", "<0xBD>"));
}

TEST(SentencePiece, ControlTokensComeFromLiteralTextOnly) {
  const TokenizerData data = small_model();
  EXPECT_THAT(pieces(data, "<s>a", true), ElementsAre("<s>", "\u2581a"));
  EXPECT_THAT(pieces(data, "<s>"), ElementsAre("\u2581", "<0x3C>", "<0x73>", "<0x3E>"));
  // User-defined symbols are ordinary text: found everywhere, as the library does.
  EXPECT_THAT(pieces(data, "a<tool>"), ElementsAre("\u2581a", "<tool>"));
}

TEST(SentencePiece, ACharacterOrWordThatSpellsAControlTokenIsText) {
  for (const char* model : {"llama", "t5", "spm-word", "spm-char"}) {
    TokenizerData data = small_model(model);
    data.sentencepiece.dummy_prefix = false;
    data.types[static_cast<std::size_t>(data.tokens.size()) - 1] = TokenType::kControl;  // "b"
    const auto tokenizer = make_tokenizer(data);
    for (const char* text : {"b", "ab b", "<s>", "<s> b"}) {
      for (const int32_t id : tokenizer->encode(text, false))
        EXPECT_FALSE(tokenizer->is_control(id)) << model << ": " << text;
    }
    EXPECT_THAT(pieces(*tokenizer, tokenizer->encode("b", true)), ElementsAre("b"));
  }
}

// small_model() without byte tokens.
TokenizerData without_bytes(const std::string& model) {
  const TokenizerData all = small_model(model);
  TokenizerData data = all;
  data.tokens.clear();
  data.types.clear();
  data.scores.clear();
  for (std::size_t id = 0; id < all.tokens.size(); ++id)
    if (all.types[id] != TokenType::kByte)
      add_piece(data, all.tokens[id], all.scores[id], all.types[id]);
  return data;
}

TEST(SentencePiece, NeighbouringUnknownCharactersAreOneToken) {
  for (const char* model : {"llama", "t5", "spm-char"}) {
    const TokenizerData data = without_bytes(model);
    EXPECT_THAT(pieces(data, "\u00E9\xFF b<0x41>"),
                ElementsAre("\u2581", "<unk>", "\u2581", "b", "<unk>"))
        << model;
  }
  EXPECT_THAT(pieces(without_bytes("spm-word"), "ab x <0x41> a"),
              ElementsAre("\u2581ab", "<unk>", "\u2581a"));
}

// The library with the whole model: the slow twin of our cuts.
class Library {
 public:
  Library(const TokenizerData& data, SentencePieceType type) {
    const auto status = processor_.LoadFromSerializedProto(model_proto(data, type));
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }
  std::vector<int32_t> encode(const std::string& text) const {
    std::vector<int> ids;
    if (!processor_.Encode(text, &ids).ok()) throw std::runtime_error("not encoded");
    return ids;
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

std::string random_text(std::mt19937& random, std::size_t most) {
  constexpr const char* kUnits[] = {"a",      "b",    "ab",     "c",        " ", "  ",
                                    "\u2581", "\xFF", "\u00E9", "\xE2\x96", "x", "<t>"};
  std::string out;
  for (std::size_t i = random() % most; i > 0; --i) out += kUnits[random() % std::size(kUnits)];
  return out;
}

// Short pieces of few characters, so that many pairs meet; scores of few values, so that many tie.
TokenizerData random_model(std::mt19937& random, const char* model) {
  constexpr const char* kCharacters[] = {"a", "b", "\u2581", "\u00E9"};
  TokenizerData data = random() % 2 ? small_model(model) : without_bytes(model);
  std::set<std::string> taken(data.tokens.begin(), data.tokens.end());
  const bool across_words = random() % 2, unused = random() % 2;
  for (std::size_t i = random() % 60; i > 0; --i) {
    std::string piece;
    for (std::size_t length = 1 + random() % 5; length > 0; --length)
      piece += kCharacters[random() % 4];
    if (!across_words && piece.rfind("\u2581") != 0 && piece.find("\u2581") != piece.npos) continue;
    if (!taken.insert(piece).second) continue;
    add_piece(data, piece, -static_cast<float>(random() % 8),
              unused && random() % 4 == 0 ? TokenType::kUnused
              : random() % 12 == 0        ? TokenType::kUserDefined
                                          : TokenType::kNormal);
  }
  data.sentencepiece.dummy_prefix = random() % 2;
  data.sentencepiece.remove_extra_spaces = random() % 2;
  data.sentencepiece.escape_spaces = random() % 4 != 0;
  data.sentencepiece.space_suffix = random() % 3 == 0;
  return data;
}

TEST(SentencePieceTwin, EveryCutIsTheLibrarys) {
  constexpr std::pair<const char*, SentencePieceType> kTypes[] = {
      {"llama", SentencePieceType::kBpe},
      {"spm-word", SentencePieceType::kWord},
      {"spm-char", SentencePieceType::kCharacter}};
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const auto [model, type] = kTypes[round % 3];
    const TokenizerData data = random_model(random, model);
    const Library library(data, type);
    const auto tokenizer = make_tokenizer(data);
    for (int i = 0; i < 20; ++i) {
      const std::string text = random_text(random, 40);
      ASSERT_EQ(tokenizer->encode(text, false), library.encode(text))
          << model << " '" << text << "' round " << round;
    }
  }
}

TEST(SentencePieceTwin, TextIsNormalizedAsTheLibraryDoes) {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    TokenizerData data = random_model(random, "t5");
    add_piece(data, " a", 0, TokenType::kUserDefined);
    add_piece(data, "b ", 0, TokenType::kUserDefined);
    add_piece(data, round % 2 ? " " : "  ", 0, TokenType::kUserDefined);
    const LibraryNormalizer library(data);
    const SentencePieceNormalizer ours(data);
    for (int i = 0; i < 20; ++i) {
      const std::string text = random_text(random, 30);
      ASSERT_EQ(ours.normalized(text), library.normalized(text)) << "'" << text << "'";
    }
  }
}

// Words are cut one by one where nothing merges over their borders; here the whole text is.
TEST(SentencePieceTwin, LongTextIsCutAsTheLibraryDoes) {
  std::mt19937 random(3);
  TokenizerData data = small_model();
  for (const char* piece : {"aa", "aaaa", "aab", "\u2581\u2581", "ba", "bab"})
    add_piece(data, piece, -static_cast<float>(random() % 8));
  const auto tokenizer = make_tokenizer(data);
  const Library library(data, SentencePieceType::kBpe);
  for (const std::string& text : {random_text(random, 1) + std::string(50'001, 'a'),
                                  std::string(10'001, ' '), random_text(random, 50'000)})
    EXPECT_EQ(tokenizer->encode(text, false), library.encode(text));
}

// Joining neighbouring unknown characters one by one would take 16 times as long, and minutes.
TEST(SentencePiece, ManyUnknownCharactersTakeLinearTime) {
  for (const char* model : {"t5", "llama", "spm-word", "spm-char"}) {
    const auto tokenizer = make_tokenizer(without_bytes(model));
    const auto work = [&](const std::string& text) { tokenizer->encode(text, false); };
    const double small = seconds_for(work, std::string(1 << 16, '\xFF'));
    EXPECT_LE(seconds_for(work, std::string(1 << 18, '\xFF')), 10 * small + 0.05) << model;
  }
}

TEST(SentencePiece, AddsBosIfTheDataSaysSo) {
  TokenizerData data = small_model();
  data.add_bos = true;
  EXPECT_THAT(pieces(data, "a"), ElementsAre("<s>", "\u2581a"));
  EXPECT_THAT(pieces(data, ""), ElementsAre("<s>"));
}

TEST(SentencePiece, DecodesWhatItEncodes) {
  const auto tokenizer = make_tokenizer(small_model());
  for (const char* text : {"", " ", "ab ab", " a", "\u00E9 \U0001F600", "b<tool>"})
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, false), false), text);
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{1, 2}, false), "<tool>");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{1, 2}, true), "<s><tool>");
  EXPECT_EQ(tokenizer->bytes(-1), "");
  EXPECT_EQ(tokenizer->bytes(1 << 20), "");
}

TEST(SentencePiece, TheUnkFieldMayNameTheUnknownToken) {
  TokenizerData data = small_model();
  data.types[0] = TokenType::kControl;
  EXPECT_THAT(pieces(data, "a"), ElementsAre("\u2581a"));
  data.unk = -1;
  EXPECT_THROW(make_tokenizer(data), std::invalid_argument);
}

struct Wrong {
  const char* message;
  void (*spoil)(TokenizerData&);
};

class SentencePieceRefuses : public testing::TestWithParam<Wrong> {};

TEST_P(SentencePieceRefuses, BeforeTheLibrarySeesIt) {
  TokenizerData data = small_model();
  GetParam().spoil(data);
  try {
    make_tokenizer(data);
    FAIL() << "accepted";
  } catch (const std::invalid_argument& error) {
    EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, SentencePieceRefuses,
    testing::Values(
        Wrong{"unlawful length", [](TokenizerData& d) { d.tokens.back() = ""; }},
        Wrong{"unlawful length", [](TokenizerData& d) { d.tokens.back().assign(100'000, 'x'); }},
        Wrong{"with a NUL", [](TokenizerData& d) { d.tokens.back() = std::string("a\0b", 3); }},
        Wrong{"not UTF-8", [](TokenizerData& d) { d.tokens.back() = "\xC3"; }},
        Wrong{"duplicate piece", [](TokenizerData& d) { d.tokens.back() = "a"; }},
        Wrong{"not finite", [](TokenizerData& d) { d.scores.back() = std::nanf(""); }},
        Wrong{"no scores", [](TokenizerData& d) { d.scores.clear(); }},
        Wrong{"several unknown", [](TokenizerData& d) { d.types.back() = TokenType::kUnknown; }},
        Wrong{"malformed byte", [](TokenizerData& d) { d.tokens[3] = "<0x-1>"; }},
        Wrong{"malformed byte", [](TokenizerData& d) { d.tokens[3 + 0xAB] = "<0xab>"; }},
        Wrong{"spelled like a byte",
              [](TokenizerData& d) {
                for (std::size_t id = 0; id < d.tokens.size(); ++id)
                  if (d.types[id] == TokenType::kByte)
                    d.types[id] = id % 2 ? TokenType::kNormal : TokenType::kUnused;
              }},
        Wrong{"incomplete byte", [](TokenizerData& d) { d.types[3] = TokenType::kNormal; }},
        Wrong{"nested too deeply",
              [](TokenizerData& d) {
                std::string text;
                for (int i = 0; i < 65; ++i) add_piece(d, text += 'x', 0, TokenType::kUserDefined);
              }},
        Wrong{"damaged normalizer",
              [](TokenizerData& d) { d.sentencepiece.charsmap = "not a trie"; }}));

// A trie of 256-unit blocks, written by hand. Unit: label | leaf << 8 | offset << 10.
class Charsmap {
 public:
  explicit Charsmap(std::size_t blocks) : units_(blocks * 256, 0x80000000u) {}
  // The child of the node at `base ^ label`; returns where its own children are based.
  void node(uint32_t at, uint8_t label, uint32_t base, bool leaf = false) {
    units_[at] = label | (leaf ? 1u << 8 : 0u) | (at ^ base) << 10;
  }
  void value(uint32_t base, uint32_t offset) { units_[base] = 0x80000000u | offset; }
  std::string with(const std::string& replacements) const {
    std::string out(4 + units_.size() * 4, '\0');
    const auto bytes = static_cast<uint32_t>(units_.size() * 4);
    std::memcpy(out.data(), &bytes, 4);
    std::memcpy(out.data() + 4, units_.data(), bytes);
    return out + replacements;
  }

 private:
  std::vector<uint32_t> units_;
};

// "c" is replaced by "a".
Charsmap c_to_a() {
  Charsmap map(3);
  map.node(0, 0, 256);
  map.node(256 ^ 'c', 'c', 512, true);
  map.value(512, 0);
  return map;
}

const std::string kToA("a\0", 2);

TEST(Charsmap, IsUsedIfItIsSound) {
  TokenizerData data = small_model();
  data.sentencepiece.charsmap = c_to_a().with(kToA);
  EXPECT_THAT(pieces(data, "cb"), ElementsAre("\u2581ab"));
}

TEST(Charsmap, RefusesWhatWouldBeReadOutOfBounds) {
  const auto refuse = [](const std::string& charsmap) {
    EXPECT_THROW(check_charsmap(charsmap), std::invalid_argument);
  };
  check_charsmap(c_to_a().with(kToA));
  refuse(c_to_a().with("a"));                       // no NUL at the end
  refuse(c_to_a().with(std::string("\xFF\0", 2)));  // not UTF-8
  refuse(c_to_a().with(kToA).substr(0, 3 * 1024));  // trie cut short
  Charsmap outside = c_to_a();
  outside.node(256 ^ 'c', 'c', 1 << 20);
  refuse(outside.with(kToA));
  Charsmap no_replacement = c_to_a();
  no_replacement.value(512, 2);
  refuse(no_replacement.with(kToA));
  Charsmap half = c_to_a();
  half.value(512, 1);
  refuse(half.with(std::string("\u00E9\0", 3)));  // the middle of a character
  Charsmap circle(3);
  circle.node(0, 0, 256);
  circle.node(256 ^ 'c', 'c', 256);  // its child by 'c' is itself
  refuse(circle.with(kToA));
  Charsmap many(36);  // 33 matches in "ccc..."
  many.node(0, 0, 256);
  for (uint32_t depth = 1; depth <= 33; ++depth) {
    many.node((depth * 256) ^ 'c', 'c', (depth + 1) * 256, true);
    many.value((depth + 1) * 256, 0);
  }
  refuse(many.with(kToA));
}

TEST(Charsmap, EveryDamageOfAByteIsRefusedOrHarmless) {
  const std::string whole = c_to_a().with(kToA);
  TokenizerData data = small_model();
  int accepted = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    data.sentencepiece.charsmap = whole;
    data.sentencepiece.charsmap[i] =
        static_cast<char>(data.sentencepiece.charsmap[i] ^ (1 << i % 8));
    try {
      check_charsmap(data.sentencepiece.charsmap);
    } catch (const std::invalid_argument&) {
      continue;
    }
    // A sanitizer sees what the library reads then.
    if (++accepted % 64 == 0) make_tokenizer(data)->encode("abc\xFF\u00E9 c\x63\x80", false);
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace crumb::tokenizer
