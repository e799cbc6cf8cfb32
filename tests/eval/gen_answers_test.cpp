#include "bench/eval/gen_answers.h"

#include <gtest/gtest.h>

#include "bench/eval/language.h"
#include "bench/eval/sentences.h"

namespace crumb::eval {
namespace {

TEST(Answers, StrictNumberIsTheFirstAfterTheMark) {
  EXPECT_EQ(strict_number("so 3 + 4\n#### 7"), "7");
  EXPECT_EQ(strict_number("#### -1,234.50 euros\n#### 8"), "-1,234.50");
  EXPECT_EQ(strict_number("#### none\n#### 8"), "8");
  EXPECT_EQ(strict_number("####8"), "");
  EXPECT_EQ(strict_number("the answer is 8"), "");
  EXPECT_EQ(strict_number("#### "), "");
  EXPECT_EQ(strict_number("#### -"), "");
}

TEST(Answers, FlexibleNumberIsTheLast) {
  EXPECT_EQ(flexible_number("first 3, then $1,200."), "$1,200.");
  EXPECT_EQ(flexible_number("7 apples and 5 pears"), "5");
  EXPECT_EQ(flexible_number("it is 7. No, -8"), "-8");
  EXPECT_EQ(flexible_number("none at all"), "");
  EXPECT_EQ(flexible_number("wait.. what"), "..");  // as the pattern has it
  EXPECT_EQ(flexible_number(""), "");
}

TEST(Answers, NumbersAreComparedAsTheHarnessDoes) {
  EXPECT_TRUE(same_number_text("$1,200.", "1200"));
  EXPECT_FALSE(same_number_text("8.0", "8"));
  EXPECT_FALSE(same_number_text("", ""));
  EXPECT_TRUE(same_number_value("8.0", "8"));
  EXPECT_TRUE(same_number_value("-3.50", "-3.5"));
  EXPECT_FALSE(same_number_value("..", "0"));
  EXPECT_FALSE(same_number_value("", ""));
  EXPECT_FALSE(same_number_value("1e999", "1e999"));
}

TEST(Answers, PuzzleAnswerIsTheRestOfTheLineButItsPeriod) {
  EXPECT_EQ(puzzle_answer("Hence. So the answer is (B).\nthe answer is (C)."), "(B)");
  EXPECT_EQ(puzzle_answer("the answer is True"), "Tru");  // as the pattern has it
  EXPECT_EQ(puzzle_answer("the answer is \nthe answer is no."), "no");
  EXPECT_EQ(puzzle_answer("The answer is no."), "");
  EXPECT_EQ(puzzle_answer("the answer is "), "");
}

TEST(Answers, Programs) {
  EXPECT_EQ(mbpp_program("def f(): return 1", "import re", {"assert f() == 1", "assert f()"}),
            "def f(): return 1\nimport re\nassert f() == 1\nassert f()\n");
  EXPECT_EQ(humaneval_program("def f():\n", "    return 1", "def check(g): assert g()", "f"),
            "def f():\n    return 1\ndef check(g): assert g()\ncheck(f)\n");
}

std::vector<std::string> sentence_list(std::string_view text) {
  std::vector<std::string> list;
  const Text decoded = decode(text);
  for (const TextView one : sentences(decoded)) list.push_back(encode(one));
  return list;
}
std::vector<std::string> token_list(std::string_view text) {
  std::vector<std::string> list;
  for (const Text& one : word_tokens(decode(text))) list.push_back(encode(one));
  return list;
}
using List = std::vector<std::string>;

// All of these are what NLTK 3.10.4 gives.
TEST(Sentences, AsPunktCutsThem) {
  EXPECT_EQ(sentence_list("Dr. Smith went home. He slept."),
            (List{"Dr. Smith went home.", "He slept."}));
  EXPECT_EQ(sentence_list("1. Buy milk. 2. Go home."), (List{"1.", "Buy milk.", "2.", "Go home."}));
  EXPECT_EQ(sentence_list("See p. 3 of vol. two, e.g. this one."),
            (List{"See p. 3 of vol.", "two, e.g.", "this one."}));
  EXPECT_EQ(sentence_list("(It rained.) \"It did.\" So what?!"),
            (List{"(It rained.)", "\"It did.\"", "So what?", "!"}));
  EXPECT_EQ(sentence_list("Very bad acting!!! I promise."),
            (List{"Very bad acting!!!", "I promise."}));
  EXPECT_EQ(sentence_list("Wait... the end. Wait... What? yes"),
            (List{"Wait... the end.", "Wait... What?", "yes"}));
  EXPECT_EQ(sentence_list("no end, 3.14 and U.S. Army"), (List{"no end, 3.14 and U.S. Army"}));
  EXPECT_EQ(sentence_list("   "), List{});
  EXPECT_EQ(sentence_list(""), List{});
  EXPECT_EQ(sentence_list("?!."), (List{"?", "!."}));
}

TEST(Sentences, AbbreviationsByListAndByForm) {
  EXPECT_EQ(sentence_list("At 5 p.m. Mrs. J. Smith of Acme Inc. left. It rained."),
            (List{"At 5 p.m. Mrs. J. Smith of Acme Inc. left.", "It rained."}));
  EXPECT_EQ(sentence_list("He sat. No. Yes, i.e. fine."),
            (List{"He sat.", "No.", "Yes, i.e.", "fine."}));
}

TEST(Sentences, WordTokensAsTreebank) {
  EXPECT_EQ(token_list("I can't, won't and cannot pay $3.88 (or 3,36)."),
            (List{"I", "ca", "n't", ",", "wo", "n't", "and", "can", "not", "pay", "$", "3.88", "(",
                  "or", "3,36", ")", "."}));
  EXPECT_EQ(token_list("\"NASA's\" U.S. base -- *big*; 'tis R&D"),
            (List{"``", "NASA", "'s", "''", "U.S.", "base", "--", "*", "big", "*", ";", "'", "tis",
                  "R", "&", "D"}));
  EXPECT_EQ(token_list("“Gonna” go… ‘now’?"),
            (List{"“", "Gon", "na", "”", "go…", "‘", "now", "’", "?"}));
  EXPECT_EQ(token_list(""), List{});
}

TEST(Language, ByScriptAndWords) {
  const auto is = [](std::string_view text) { return detect_language(decode(text)); };
  EXPECT_EQ(is("the house is on the hill"), "en");
  EXPECT_EQ(is("el perro está en la casa con los niños"), "es");
  EXPECT_EQ(is("le chien est dans la maison avec les enfants"), "fr");
  EXPECT_EQ(is("собака дома, потому что идёт дождь, и дети"), "ru");
  EXPECT_EQ(is("کتا گھر میں ہے اور بچے اس کے ساتھ ہیں"), "ur");
  EXPECT_EQ(is("الكلب في البيت مع الأطفال"), "ar");
  EXPECT_EQ(is("ನಾಯಿ ಮನೆಯಲ್ಲಿದೆ"), "kn");
  EXPECT_EQ(is("犬は家にいます"), "ja");
  EXPECT_EQ(is("狗在家里"), "zh-cn");
  EXPECT_EQ(is("1234 ... !?"), kNoLanguage);
  EXPECT_EQ(is("https://example.org/page"), kNoLanguage);
}

}  // namespace
}  // namespace crumb::eval
