#include "models/tokenizer_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "models/errors.h"
#include "tests/models/support.h"

namespace crumb::models {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Protocol buffer fields by hand.
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  return out + static_cast<char>(value);
}
std::string field(int number, const std::string& bytes) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string field(int number, uint64_t value) {
  return varint(static_cast<uint64_t>(number) << 3) + varint(value);
}
std::string piece(const std::string& text, float score, uint64_t type) {
  std::string bytes = field(1, text) + varint(2 << 3 | 5);
  const auto bits = std::bit_cast<uint32_t>(score);
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift & 0xFF);
  return field(1, bytes + field(3, type));
}

std::string small_model() {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("a", -1.5f, 1) +
         field(2, field(3, uint64_t{2}) + field(43, ~uint64_t{0})) +
         field(3,
               field(1, std::string("identity")) + field(3, uint64_t{0}) + field(4, uint64_t{0}));
}

Vocab read(const std::string& bytes) {
  return read_sentencepiece_model({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                                  "t.model");
}

TEST(SentencePieceModel, IsRead) {
  const Vocab vocab = read(small_model());
  EXPECT_EQ(vocab.model, "llama");
  EXPECT_THAT(vocab.tokens, ElementsAre("<unk>", "<s>", "</s>", "a"));
  EXPECT_EQ(vocab.scores[3], -1.5f);
  EXPECT_EQ(vocab.types[1], TokenType::kControl);
  EXPECT_EQ(vocab.unk, 0);
  EXPECT_EQ(vocab.bos, 1);
  EXPECT_EQ(vocab.eos, 2);
  EXPECT_EQ(vocab.pad, -1);
  EXPECT_FALSE(vocab.add_space_prefix);
  EXPECT_FALSE(vocab.remove_extra_spaces);
  EXPECT_TRUE(vocab.escape_spaces);
}

TEST(SentencePieceModel, DamageIsAFormatErrorOrHarmless) {
  const std::string whole = small_model();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    try {
      read(whole.substr(0, size));
    } catch (const FormatError&) {
    }
  }
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ 1 << bit);
      try {
        read(bytes);
      } catch (const FormatError&) {
      }
    }
  }
  EXPECT_THROW(read(""), FormatError);
  EXPECT_THROW(read(field(1, field(1, std::string(5000, 'x')))), FormatError);
  EXPECT_THROW(read(piece("a", 0, 7)), FormatError);
  EXPECT_THROW(read(std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11)), FormatError);
  EXPECT_THROW(read(std::string(11, '\xff')), FormatError);
}

const std::string kByteLevel = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})";

std::string tokenizer_json(const std::string& model, const std::string& pre,
                           const std::string& more = "") {
  return R"({"added_tokens":[{"id":3,"content":"<s>","special":true}],"pre_tokenizer":)" + pre +
         R"(,"model":)" + model + more + "}";
}
const std::string kModel = R"({"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]})";

TEST(TokenizerJson, ByteLevelIsRead) {
  const Vocab vocab = read_tokenizer_json(tokenizer_json(kModel, kByteLevel), "t.json");
  EXPECT_EQ(vocab.model, "gpt2");
  EXPECT_EQ(vocab.pre, "gpt-2");
  EXPECT_THAT(vocab.tokens, ElementsAre("a", "b", "ab", "<s>"));
  EXPECT_EQ(vocab.types[3], TokenType::kControl);
  EXPECT_THAT(vocab.merges, ElementsAre(std::array<int32_t, 3>{0, 1, 2}));
  EXPECT_FALSE(vocab.add_bos);
}

TEST(TokenizerJson, SentencePieceMergesBecomeScores) {
  const std::string model = R"({"type":"BPE","byte_fallback":true,"unk_token":"<unk>",)"
                            R"("vocab":{"<unk>":0,"a":1,"b":2,"<s>":3,"ab":4,"aba":5,"<0x41>":6},)"
                            R"("merges":[["a","b"],["ab","a"]]})";
  const std::string normal =
      R"(,"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)"
      R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]},)"
      R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}]})";
  const Vocab vocab = read_tokenizer_json(tokenizer_json(model, "null", normal), "t.json");
  EXPECT_EQ(vocab.model, "llama");
  EXPECT_TRUE(vocab.add_space_prefix);
  EXPECT_EQ(vocab.scores[4], 0.0f);
  EXPECT_EQ(vocab.scores[5], -1.0f);
  EXPECT_EQ(vocab.types[6], TokenType::kByte);
  EXPECT_EQ(vocab.unk, 0);
  EXPECT_TRUE(vocab.add_bos);
  EXPECT_EQ(vocab.bos, 3);
}

TEST(TokenizerJson, RefusesWhatItCannotDoByName) {
  const std::pair<std::string, const char*> cases[] = {
      {tokenizer_json(R"({"type":"Unigram","vocab":[]})", kByteLevel), "model.type"},
      {tokenizer_json(kModel, R"({"type":"Whitespace"})"), "pre_tokenizer"},
      {tokenizer_json(kModel, kByteLevel, R"(,"normalizer":{"type":"NFKC"})"), "normalizer"},
      {tokenizer_json(R"({"type":"BPE","vocab":{"a":0,"b":9},"merges":[]})", kByteLevel), "dense"},
      {tokenizer_json(R"({"type":"BPE","vocab":{"a":-1},"merges":[]})", kByteLevel), "token id"},
      {tokenizer_json(R"({"type":"BPE","vocab":{"a":0,"b":1,"c":2},"merges":["a b"]})", kByteLevel),
       "merge 0"},
      {tokenizer_json(R"({"type":"BPE","vocab":{"a":0,"b":1,"c":2},"merges":["ab"]})", kByteLevel),
       "merge 0"},
      {"[]", "object"},
      {std::string(70, '{'), "JSON"},
  };
  for (const auto& [text, message] : cases) {
    try {
      read_tokenizer_json(text, "t.json");
      ADD_FAILURE() << "accepted " << text;
    } catch (const FormatError& error) {
      EXPECT_THAT(error.what(), HasSubstr(message));
    }
  }
}

TEST(TokenizerJson, EveryCutIsAFormatError) {
  const std::string whole = tokenizer_json(kModel, kByteLevel);
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_THROW(read_tokenizer_json(whole.substr(0, size), "t.json"), FormatError);
}

}  // namespace
}  // namespace crumb::models
