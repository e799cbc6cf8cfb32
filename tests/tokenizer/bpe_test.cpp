#include "tokenizer/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/tokenizer/linear.h"
#include "tests/tokenizer/vocabulary.h"
#include "tokenizer/flat_index.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::span<const Segment> segments) {
  std::vector<std::string> out;
  for (const int32_t id : tokenizer.encode(segments)) out.emplace_back(tokenizer.bytes(id));
  return out;
}

std::vector<std::string> pieces(const Tokenizer& tokenizer, const std::string& text,
                                bool literal = false) {
  return pieces(tokenizer, std::vector<Segment>{{text, literal}});
}

TEST(ByteAlphabet, WritesBytesAsGpt2Does) {
  EXPECT_EQ(to_byte_alphabet("a b\n"), "a\u0120b\u010A");
  EXPECT_EQ(to_byte_alphabet(std::string("\0\x7F\xA0\xAD\xFF", 5)),
            "\u0100\u0121\u0142\u0143\u00FF");
}

TEST(ByteAlphabet, ComesBack) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  EXPECT_EQ(from_byte_alphabet(to_byte_alphabet(bytes)), bytes);
}

TEST(ByteAlphabet, LeavesForeignTextAlone) {
  EXPECT_EQ(from_byte_alphabet("two words"), "two words");
  EXPECT_EQ(from_byte_alphabet("\u0120\u4E2D"), "\u0120\u4E2D");
  EXPECT_EQ(from_byte_alphabet("a\xFF"), "a\xFF");
}

TEST(Bpe, MergesLowestRankFirstAndLeftmostOfEquals) {
  const auto tokenizer = make_tokenizer(byte_vocabulary({{"b", "c"}, {"a", "b"}, {"a", "a"}}));
  EXPECT_THAT(pieces(*tokenizer, "abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(pieces(*tokenizer, "aaa"), ElementsAre("aa", "a"));
  EXPECT_THAT(pieces(*tokenizer, "aab"), ElementsAre("a", "ab"));
}

TEST(Bpe, MergesWithinWordsOnly) {
  const auto tokenizer = make_tokenizer(byte_vocabulary({{"a", " "}, {" ", "b"}, {"a", " b"}}));
  EXPECT_THAT(pieces(*tokenizer, "a b"), ElementsAre("a", " b"));
}

TEST(Bpe, FirstOfTwoMergesOfTheSamePartsCounts) {
  TokenizerData data = byte_vocabulary({{"a", "b"}, {"b", "c"}});
  data.merges.push_back(data.merges[0]);
  EXPECT_THAT(pieces(*make_tokenizer(data), "abc"), ElementsAre("ab", "c"));
}

TEST(Bpe, DropsAndCountsBytesWithoutToken) {
  const auto tokenizer = make_tokenizer(byte_vocabulary({{"a", "b"}}, "gpt-2", "\x04\xFF"));
  EncodeReport report{77};
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("x\x04y\xFF\xFF", false, &report), true), "xy");
  EXPECT_EQ(report.dropped_bytes, 3);
  tokenizer->encode("clean", false, &report);
  EXPECT_EQ(report.dropped_bytes, 0);
}

TEST(Bpe, NeighboursOfADroppedByteMayMerge) {
  // U+00FF is C3 BF: letters all, so one word, from which C3 is lacking.
  const auto tokenizer = make_tokenizer(byte_vocabulary({{"a", "\xBF"}}, "gpt-2", "\xC3"));
  EXPECT_THAT(pieces(*tokenizer, "a\u00FF"), ElementsAre("a\xBF"));
}

TEST(Bpe, ControlTokensComeFromLiteralTextOnly) {
  TokenizerData data = byte_vocabulary({});
  add_token(data, "<s>", TokenType::kControl);
  add_token(data, "<tool>", TokenType::kUserDefined);
  const auto tokenizer = make_tokenizer(data);
  EXPECT_THAT(pieces(*tokenizer, "<s>a<tool>", true), ElementsAre("<s>", "a", "<tool>"));
  EXPECT_THAT(pieces(*tokenizer, "<s>"), ElementsAre("<", "s", ">"));
  EXPECT_EQ(tokenizer->encode("<tool>", false).size(), 6u);
  EXPECT_THAT(pieces(*tokenizer, std::vector<Segment>{{"<s", true}, {">", false}}),
              ElementsAre("<", "s", ">"));
  EXPECT_THAT(pieces(*tokenizer, std::vector<Segment>{{"<", false}, {"s>", true}}),
              ElementsAre("<", "s", ">"));
  EXPECT_THAT(pieces(*tokenizer, std::vector<Segment>{{"<", true}, {"", false}, {"s>", true}}),
              ElementsAre("<s>"));
}

TEST(Bpe, TakesTheLeftmostThenLongestSpecialToken) {
  TokenizerData data = byte_vocabulary({});
  for (const char* text : {"<a>", "<a><b>", "a><b><c>", "<c", ""}) {
    add_token(data, text, TokenType::kControl);
  }
  const auto tokenizer = make_tokenizer(data);
  EXPECT_THAT(pieces(*tokenizer, "<a><b><c>", true), ElementsAre("<a><b>", "<c", ">"));
  EXPECT_THAT(pieces(*tokenizer, "<a><b", true), ElementsAre("<a>", "<", "b"));
}

TEST(Bpe, WordsAndMergesCrossSegmentBorders) {
  const auto tokenizer = make_tokenizer(byte_vocabulary({{" ", "a"}, {" a", "b"}}));
  EXPECT_THAT(pieces(*tokenizer, std::vector<Segment>{{" ", true}, {"a", false}, {"b", true}}),
              ElementsAre(" ab"));
}

TEST(Bpe, SpecialTokensEndWords) {
  TokenizerData data = byte_vocabulary({{"\n", "\n"}, {"a", "b"}});
  add_token(data, "<s>", TokenType::kControl);
  const auto tokenizer = make_tokenizer(data);
  // "\n\n" ends its stretch, so the look-ahead leaves nothing to the next word.
  EXPECT_THAT(pieces(*tokenizer, "\n\n<s>", true), ElementsAre("\n\n", "<s>"));
  EXPECT_THAT(pieces(*tokenizer, "\n\nx", true), ElementsAre("\n", "\n", "x"));
  EXPECT_THAT(pieces(*tokenizer, "a<s>b", true), ElementsAre("a", "<s>", "b"));
}

TEST(Bpe, Llama3TakesWholeWordsFromTheVocabulary) {
  TokenizerData data = byte_vocabulary({{"a", "b"}}, "llama-bpe");
  add_token(data, "abc");                       // no merge makes it
  add_token(data, "xyz", TokenType::kControl);  // what no text may make
  const auto tokenizer = make_tokenizer(data);
  EXPECT_THAT(pieces(*tokenizer, "abc"), ElementsAre("abc"));
  EXPECT_THAT(pieces(*tokenizer, "abcd"), ElementsAre("ab", "c", "d"));
  EXPECT_THAT(pieces(*tokenizer, "xyz"), ElementsAre("x", "y", "z"));
}

TEST(Bpe, Qwen2NormalisesToNfc) {
  const auto tokenizer = make_tokenizer(byte_vocabulary({}, "qwen2"));
  EXPECT_THAT(tokenizer->encode("e\u0301", false), ElementsAre(0xC3, 0xA9));
}

TEST(Bpe, AddsBosIfTheDataSaysSo) {
  TokenizerData data = byte_vocabulary({});
  add_token(data, "<s>", TokenType::kControl);
  data.bos = 256;
  EXPECT_THAT(make_tokenizer(data)->encode("a", false), ElementsAre('a'));
  data.add_bos = true;
  EXPECT_THAT(make_tokenizer(data)->encode("a", false), ElementsAre(256, 'a'));
  EXPECT_THAT(make_tokenizer(data)->encode("", false), ElementsAre(256));
}

TEST(Bpe, DecodeLeavesControlTokensOutUnlessAsked) {
  TokenizerData data = byte_vocabulary({});
  add_token(data, "<s>", TokenType::kControl);
  add_token(data, " raw text", TokenType::kUserDefined);
  const auto tokenizer = make_tokenizer(data);
  const std::vector<int32_t> ids = {256, 'a', 257, 10, -1, 258};
  EXPECT_EQ(tokenizer->decode(ids, false), "a raw text\n");
  EXPECT_EQ(tokenizer->decode(ids, true), "<s>a raw text\n");
  EXPECT_TRUE(tokenizer->is_control(256));
  EXPECT_FALSE(tokenizer->is_control(257));
  EXPECT_FALSE(tokenizer->is_control(258));
  EXPECT_EQ(tokenizer->bytes(-1), "");
  EXPECT_EQ(tokenizer->bytes(258), "");
}

// The slow twin: look at all pairs, merge the best, again.
class SlowMerger {
 public:
  explicit SlowMerger(const TokenizerData& data) {
    for (std::size_t rank = 0; rank < data.merges.size(); ++rank) {
      const auto [left, right, result] = data.merges[rank];
      due_.emplace(std::pair(left, right), std::pair(rank, result));
    }
  }
  std::vector<int32_t> operator()(std::vector<int32_t> ids) const {
    for (;;) {
      auto best = due_.end();
      std::size_t place = 0;
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto found = due_.find({ids[i], ids[i + 1]});
        if (found == due_.end()) continue;
        if (best == due_.end() || found->second.first < best->second.first) {
          best = found;
          place = i;
        }
      }
      if (best == due_.end()) return ids;
      ids[place] = best->second.second;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
  }

 private:
  std::map<std::pair<int32_t, int32_t>, std::pair<std::size_t, int32_t>> due_;  // rank, result
};

TEST(Bpe, EqualsTheSlowTwinOnRandomVocabularies) {
  std::mt19937 random(20240607);
  for (int round = 0; round < 60; ++round) {
    Pairs merges;
    std::vector<std::string> known = {"a", "b", "c"};
    for (int i = 0; i < 40; ++i) {
      const std::string left = known[random() % known.size()];
      const std::string right = known[random() % known.size()];
      if (left.size() + right.size() > 12) continue;
      merges.emplace_back(left, right);
      known.push_back(left + right);
    }
    const TokenizerData data = byte_vocabulary(merges);
    const auto tokenizer = make_tokenizer(data);
    const SlowMerger merge_slowly(data);
    for (int i = 0; i < 30; ++i) {
      const std::string word = random_bytes(random, "aabc", i < 5 ? 400 : 30);
      ASSERT_EQ(tokenizer->encode(word, false),
                merge_slowly(std::vector<int32_t>(word.begin(), word.end())))
          << word;
    }
  }
}

TEST(Bpe, AnyBytesComeBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  std::mt19937 random(3);
  for (const char* pre : {"gpt-2", "smollm", "qwen2"}) {
    const auto tokenizer = make_tokenizer(byte_vocabulary({{"\xC3", "\xA9"}, {" ", "\xC3"}}, pre));
    for (int i = 0; i < 200; ++i) {
      const std::string bytes = random_bytes(random, i % 2 ? all : " \n\xC3\xA9\xF0'a1", 60);
      ASSERT_EQ(tokenizer->decode(tokenizer->encode(bytes, false), true), bytes);
    }
  }
}

// Bad data, and what the message must name.
struct BadData {
  const char* says;
  void (*spoil)(TokenizerData&);
};

TEST(Bpe, InconsistentDataIsRejected) {
  const BadData cases[] = {
      {"empty vocabulary",
       [](TokenizerData& data) { data.tokens.clear(), data.types.clear(), data.merges.clear(); }},
      {"found 'bert'", [](TokenizerData& data) { data.model = "bert"; }},
      {"one of gpt-2, llama-bpe, qwen2, smollm, found 'other'",
       [](TokenizerData& data) { data.pre = "other"; }},
      {"types: expected 257, found 256", [](TokenizerData& data) { data.types.pop_back(); }},
      {"types[3]: expected 1 to 6, found 9",
       [](TokenizerData& data) { data.types[3] = static_cast<TokenType>(9); }},
      {"scores", [](TokenizerData& data) { data.scores.resize(2); }},
      {"bos: expected -1 to 256, found 257", [](TokenizerData& data) { data.bos = 257; }},
      {"pad: expected -1 to 256, found -2", [](TokenizerData& data) { data.pad = -2; }},
      {"add_bos without a bos", [](TokenizerData& data) { data.add_bos = true; }},
      {"tokens[256]: expected each token once, found the text of token 97",
       [](TokenizerData& data) { data.merges.clear(), data.tokens[256] = data.tokens[97]; }},
      {"merges[0]: expected 0 to 256, found 257",
       [](TokenizerData& data) { data.merges[0][2] = 257; }},
      {"merges[0]: expected 0 to 256, found -1",
       [](TokenizerData& data) { data.merges[0][0] = -1; }},
      {"does not join its parts", [](TokenizerData& data) { data.merges[0][2] = 'a'; }},
      {"does not join its parts",
       [](TokenizerData& data) { std::swap(data.merges[0][0], data.merges[0][1]); }},
      {"makes a control token", [](TokenizerData& data) { data.types[256] = TokenType::kControl; }},
      {"special token too long",
       [](TokenizerData& data) { add_token(data, std::string(513, 'x'), TokenType::kControl); }},
  };
  for (const BadData& bad : cases) {
    TokenizerData data = byte_vocabulary({{"a", "b"}});
    ASSERT_NO_THROW(make_tokenizer(data));
    bad.spoil(data);
    try {
      make_tokenizer(data);
      ADD_FAILURE() << "accepted: " << bad.says;
    } catch (const std::invalid_argument& error) {
      EXPECT_THAT(error.what(), HasSubstr(bad.says));
    }
  }
}

TEST(Bpe, MonotonousTextTakesLinearTime) {
  Pairs merges;
  for (const std::string unit : {"A", " ", "\n", "\x80", "1", "'"}) {
    for (std::string run = unit; run.size() < 64; run += run) merges.emplace_back(run, run);
  }
  TokenizerData data = byte_vocabulary(merges);
  add_token(data, "<|im_start|>", TokenType::kControl);
  add_token(data, "<|im_end|>", TokenType::kControl);
  const auto tokenizer = make_tokenizer(data);
  expect_linear([&](const std::string& text) {
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text, true), true), text);
  });
}

TEST(FlatIndex, FindsWhatWasPutIn) {
  FlatIndex index(1000);
  const auto is = [](int32_t wanted) {
    return [wanted](int32_t found) { return found == wanted; };
  };
  for (int32_t i = 0; i < 1000; ++i) EXPECT_EQ(index.insert(i % 300, i, is(i)), i);
  for (int32_t i = 0; i < 1000; ++i) EXPECT_EQ(index.find(i % 300, is(i)), i);
  EXPECT_EQ(index.find(5, is(6)), -1);
  EXPECT_EQ(index.insert(7, 2000, is(307)), 307);
}

TEST(FlatIndex, GivesUpOnEntriesChosenToCollide) {
  FlatIndex index(100000);
  const auto never = [](int32_t) { return false; };
  EXPECT_THROW(
      {
        for (int32_t i = 0; i < 100000; ++i) index.insert(42, i, never);
      },
      std::invalid_argument);
}

std::vector<int32_t> ids_of(const nlohmann::json& line, const char* field) {
  return line.value(field, line["ids"]).get<std::vector<int32_t>>();
}

std::map<std::string, std::string> golden_texts() {
  std::map<std::string, std::string> texts;
  for (const nlohmann::json& line : read_lines("strings.jsonl")) texts[line["id"]] = line["text"];
  return texts;
}

TEST(BpeGolden, SmolLm2) {
  const std::optional<TokenizerData> data = read_smollm2();
  if (!data) GTEST_SKIP() << "no tokenizer data in " << golden_folder() << " (set CRUMB_DATA)";
  const auto tokenizer = make_tokenizer(*data);
  const auto texts = golden_texts();
  const auto lines = read_lines("golden_smollm2.jsonl");
  EXPECT_EQ(lines.size(), 1056u);
  for (const nlohmann::json& line : lines) {
    const std::string& text = texts.at(line["id"]);
    const std::vector<int32_t> ids = tokenizer->encode(text, true);
    EXPECT_EQ(ids, ids_of(line, "ids")) << line["id"];
    EXPECT_EQ(tokenizer->encode(text, false), ids_of(line, "plain")) << line["id"];
    EXPECT_EQ(replace_invalid_utf8(tokenizer->decode(ids, true)), line.value("decoded", text));
  }
}

TEST(BpeGolden, SmolLm2LacksTwentyOneBytes) {
  const std::optional<TokenizerData> data = read_smollm2();
  if (!data) GTEST_SKIP() << "no tokenizer data in " << golden_folder() << " (set CRUMB_DATA)";
  const auto tokenizer = make_tokenizer(*data);
  std::string dropped;
  for (int byte = 0; byte < 256; ++byte) {
    EncodeReport report;
    tokenizer->encode(std::string(1, static_cast<char>(byte)), false, &report);
    if (report.dropped_bytes == 1) dropped += static_cast<char>(byte);
  }
  EXPECT_EQ(dropped,
            "\x04\x06\x13\x14\x16\x1d\xc0\xc1\xf1\xf2\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff");
}

TEST(BpeGolden, SmolLm2EqualsTheSlowTwin) {
  const std::optional<TokenizerData> data = read_smollm2();
  if (!data) GTEST_SKIP() << "no tokenizer data in " << golden_folder() << " (set CRUMB_DATA)";
  const auto tokenizer = make_tokenizer(*data);
  const SlowMerger merge_slowly(*data);
  std::map<char, int32_t> byte_ids;
  for (int byte = 'a'; byte <= 'z'; ++byte) {
    byte_ids[static_cast<char>(byte)] =
        tokenizer->encode(std::string(1, static_cast<char>(byte)), false)[0];
  }
  std::mt19937 random(8);
  for (int i = 0; i < 300; ++i) {
    const std::string word = random_bytes(random, "etaoinshrdlu", 30);
    std::vector<int32_t> ids;
    for (const char byte : word) ids.push_back(byte_ids.at(byte));
    EXPECT_EQ(tokenizer->encode(word, false), merge_slowly(ids)) << word;
  }
}

TEST(BpeGolden, SmolLm2TakesLinearTime) {
  std::optional<TokenizerData> data = read_smollm2();
  if (!data) GTEST_SKIP() << "no tokenizer data in " << golden_folder() << " (set CRUMB_DATA)";
  const auto tokenizer = make_tokenizer(std::move(*data));
  expect_linear([&](const std::string& text) { tokenizer->encode(text, true); });
}

TEST(BpeGolden, Qwen2) {
  const std::optional<TokenizerData> data = read_qwen2();
  if (!data) GTEST_SKIP() << "no tokenizer data in " << golden_folder() << " (set CRUMB_DATA)";
  const auto tokenizer = make_tokenizer(*data);
  const auto texts = golden_texts();
  const auto lines = read_lines("golden_qwen2.jsonl");
  EXPECT_EQ(lines.size(), 1056u);
  for (const nlohmann::json& line : lines) {
    const std::string& text = texts.at(line["id"]);
    const std::vector<int32_t> ids = tokenizer->encode(text, true);
    EXPECT_EQ(ids, ids_of(line, "ids")) << line["id"];
    EXPECT_EQ(tokenizer->encode(text, false), ids_of(line, "plain")) << line["id"];
    EXPECT_EQ(tokenizer->decode(ids, true), line.value("decoded", text)) << line["id"];
  }
}

}  // namespace
}  // namespace crumb::tokenizer
