#include "tokenizer/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <regex>
#include <vector>

#include "tests/tokenizer/linear.h"
#include "tokenizer/unicode_tables.h"

namespace crumb::tokenizer {
namespace {

using testing::ElementsAre;
using Words = std::vector<std::string>;

Words split(const std::string& name, const std::string& text) {
  const WordEnd word_end = find_pretokenizer(name)->word_end;
  Words words;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = word_end(text, i);
    EXPECT_GT(end, i);
    EXPECT_LE(end, text.size());
    words.push_back(text.substr(i, end - i));
    i = end;
  }
  return words;
}

TEST(UnicodeTables, AreSortedAndDisjoint) {
  uint32_t after = 0;
  for (const ClassRange& range : class_ranges()) {
    EXPECT_GE(range.first, after);
    EXPECT_LE(range.first, range.last);
    after = range.last + 1;
  }
  EXPECT_LE(after, 0x110000u);
}

TEST(UnicodeTables, HaveTheCountsOfUnicode16) {
  std::size_t counts[4] = {};
  for (const ClassRange& range : class_ranges()) {
    counts[static_cast<int>(range.char_class)] += range.last - range.first + 1;
  }
  // As many as the regular expressions of the reference library (tokenizers 0.23.3) match.
  EXPECT_EQ(counts[static_cast<int>(CharClass::kLetter)], 141028u);
  EXPECT_EQ(counts[static_cast<int>(CharClass::kNumber)], 1911u);
  EXPECT_EQ(counts[static_cast<int>(CharClass::kSpace)], 25u);
}

TEST(Pretokenizer, NamesWhatItKnows) {
  EXPECT_EQ(pretokenizer_names(), "gpt-2, llama-bpe, qwen2, smollm");
  EXPECT_EQ(find_pretokenizer("none such"), nullptr);
  EXPECT_EQ(find_pretokenizer(""), nullptr);
}

TEST(Pretokenizer, Llama3TakesUpToThreeDigits) {
  EXPECT_THAT(split("llama-bpe", "1234567 a1 'LL\n"),
              ElementsAre("123", "456", "7", " a", "1", " '", "LL", "\n"));
  EXPECT_THAT(split("llama-bpe", "\u0661\u0662\u0663\u0664"),
              ElementsAre("\u0661\u0662\u0663", "\u0664"));
}

TEST(Pretokenizer, Gpt2) {
  EXPECT_THAT(split("gpt-2", "Hello  world, 123's it'll 'S"),
              ElementsAre("Hello", " ", " world", ",", " 123", "'s", " it", "'ll", " '", "S"));
  EXPECT_THAT(split("gpt-2", "a \n b\t"), ElementsAre("a", " \n", " b", "\t"));
  EXPECT_THAT(split("gpt-2", "\tx  \u00E9t\u00E9\u00A0\u0661"),
              ElementsAre("\t", "x", " ", " \u00E9t\u00E9", "\u00A0", "\u0661"));
  EXPECT_THAT(split("gpt-2",
                    "!\xFF\xF0\x9F? \xFF"
                    "a"),
              ElementsAre("!\xFF\xF0\x9F?", " \xFF", "a"));
}

TEST(Pretokenizer, SmolLmTakesNumbersOutFirst) {
  EXPECT_THAT(split("smollm", "a 12  3\n\n4 b"),
              ElementsAre("a", " ", "1", "2", "  ", "3", "\n\n", "4", " b"));
  EXPECT_THAT(split("smollm", "x\u00B2\u0663\u2167"),
              ElementsAre("x", "\u00B2", "\u0663", "\u2167"));
}

TEST(Pretokenizer, Qwen2) {
  EXPECT_THAT(split("qwen2", "IT'S 12\tx !!\n\n  y"),
              ElementsAre("IT", "'S", " ", "1", "2", "\tx", " !!\n\n", " ", " y"));
  EXPECT_THAT(split("qwen2", " \n \n  z\n"), ElementsAre(" \n \n", " ", " z", "\n"));
  EXPECT_THAT(split("qwen2", "a'\u017F'tb \r\n"), ElementsAre("a", "'\u017F", "'t", "b", " \r\n"));
}

// The slow twin: the patterns themselves, on ASCII, where std::regex knows the classes.
constexpr const char* kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\\sA-Za-z0-9]+|\\s+(?!\\S)|\\s+";
constexpr const char* kQwen2 =
    "'[sStTmMdD]|'[rR][eE]|'[vV][eE]|'[lL][lL]|[^\\r\\nA-Za-z0-9]?[A-Za-z]+|[0-9]|"
    " ?[^\\sA-Za-z0-9]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

void append_matches(const std::string& text, const std::regex& pattern, Words& words) {
  for (std::sregex_iterator match(text.begin(), text.end(), pattern), end; match != end; ++match) {
    words.push_back(match->str());
  }
}

Words split_slowly(const std::string& text, const std::regex& pattern, bool digits_alone) {
  Words words;
  if (!digits_alone) {
    append_matches(text, pattern, words);
    return words;
  }
  std::string stretch;
  for (const char character : text + "0") {
    if (character < '0' || character > '9') {
      stretch += character;
      continue;
    }
    append_matches(stretch, pattern, words);
    stretch.clear();
    words.emplace_back(1, character);
  }
  words.pop_back();
  return words;
}

TEST(Pretokenizer, EqualsTheRegularExpressions) {
  const std::string alphabet = "   \n\r\t''aBstrelvmdSLD01.!<|";
  std::mt19937 random(11);
  for (const char* name : {"gpt-2", "smollm", "qwen2"}) {
    const bool digits_alone = name == std::string("smollm");
    const std::regex pattern(name == std::string("qwen2") ? kQwen2 : kGpt2);
    for (int i = 0; i < 1500; ++i) {
      std::string text(random() % 14, ' ');
      for (char& character : text) character = alphabet[random() % alphabet.size()];
      ASSERT_EQ(split(name, text), split_slowly(text, pattern, digits_alone))
          << name << " '" << text << "'";
    }
  }
}

TEST(Pretokenizer, MonotonousTextTakesLinearTime) {
  for (const char* name : {"gpt-2", "smollm", "qwen2"}) {
    const WordEnd word_end = find_pretokenizer(name)->word_end;
    expect_linear([&](const std::string& text) {
      std::size_t words = 0;
      for (std::size_t i = 0; i < text.size(); i = word_end(text, i)) ++words;
      ASSERT_GT(words, 0u);
    });
  }
}

}  // namespace
}  // namespace crumb::tokenizer
