#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "bench/eval/instructions.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

bool follows(const std::string& id, const std::string& kwargs, const std::string& answer) {
  const Record record(
      R"({"id": "x", "instruction_id_list": [")" + id + R"("], "kwargs": [)" + kwargs + "]}",
      "fixture", 1);
  return follows_strictly(*find_checker(ifbench_checkers(), id),
                          instructions_of(record).at(0).arguments, decode(answer));
}

struct Case {
  std::string id, kwargs;
  std::vector<std::string> passes, fails;
};

std::string repeated(const std::string& word, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += word + " ";
  return text;
}

std::string alphabet_sentences(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += std::string(1, static_cast<char>('A' + i)) + "x is. ";
  return text;
}

// By hand; the reference gives the same verdicts.
const std::vector<Case> kCases = {
    {"count:conjunctions",
     R"({"small_n": 2})",
     {"this and that or", "And, and"},
     {"this and that"}},
    {"count:keywords_multiple",
     R"({"keyword1":"aa","keyword2":"bb","keyword3":"cc","keyword4":"dd","keyword5":"ee"})",
     {"AA " + repeated("bb", 2) + repeated("cc", 3) + repeated("dd", 5) + repeated("ee", 7)},
     {"aa bb cc dd ee"}},
    {"count:numbers", R"({"N": 2})", {"12 and 7", "1,000 or 3"}, {"1, 2, 3", "none"}},
    {"count:person_names", R"({"N": 2})", {"Emma met Leo."}, {"Emma met Leopold and emma."}},
    {"count:pronouns", R"({"N": 3})", {"He/she said it", "I, me, mine"}, {"the cat and he"}},
    {"count:punctuation", "{}", {"a.b,c!d?e;f: !?"}, {"a.b,c;d: !?", "a.b,c!d?e;f:"}},
    {"count:unique_word_count", R"({"N": 3})", {"one Two three"}, {"one, One. two"}},
    {"count:word_count_range",
     R"({"min_words": 2, "max_words": 3})",
     {"a b", "a b c"},
     {"a", "a b c d"}},
    {"count:words_japanese", R"({"N": 2})", {"one 日本 three かな", "one 2"}, {"one two"}},
    {"custom:character_reverse", "{}", {"an Elgae Dlab"}, {"bald eagle"}},
    {"custom:date_format_list",
     "{}",
     {"1769-08-15, 1800-02-29"},
     {"1768-12-31", "1800-04-31", "15 Aug 1769"}},
    {"custom:european_capitals_sort",
     "{}",
     {"Reykjavík, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, "
      "Dublin, Berlin, Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, "
      "Bratislava, Budapest, Vaduz, Chișinău, Bern, Ljubljana, Zagreb"},
     {"Oslo, Helsinki"}},
    {"custom:multiples", "{}", {"14, 21, 28, 35, 42, 49"}, {"14 21 28 35 42 49 56", "7 14"}},
    {"custom:sentence_alphabet", "{}", {alphabet_sentences(26)}, {alphabet_sentences(25)}},
    {"custom:word_reverse", "{}", {"bird big a is eagle bald The"}, {"the bald eagle is"}},
    {"format:line_indent", "{}", {"a\n b\n  c"}, {"a\nb", " a\nb"}},
    {"format:list", R"({"sep": "!?!?"})", {"!?!? one\n!?!? two"}, {"!?!? one"}},
    {"format:newline", "{}", {"one\ntwo\nthree"}, {"one two\nthree"}},
    {"format:no_bullets_bullets",
     "{}",
     {"One. Two.\n* a\n* b"},
     {"One.\n* a\n* b", "One. Two.\n* a"}},
    {"format:no_whitespace", "{}", {"none"}, {"a b", "a\nb"}},
    {"format:options", R"({"options": "yes/no/maybe"})", {"Yes.", "maybe"}, {"yes, I do"}},
    {"format:options", R"x({"options": "a), b), c), d)"})x", {"b)"}, {"b", "B)"}},
    {"format:output_template",
     "{}",
     {"My Answer: a My Conclusion: b Future Outlook: c"},
     {"My Answer: a"}},
    {"format:parentheses", "{}", {"([{([x])}])"}, {"([{(x)}])", "(((((", "(a)(b)(c)(d)(e)"}},
    {"format:quote_unquote", "{}", {"\"so\" is a word"}, {"he said \"so\"", "\"a\"\"b\" c"}},
    {"format:quotes", "{}", {"\"a 'b \"c\" d' e\""}, {"\"a 'b' c\""}},
    {"format:sub-bullets", "{}", {"* a\n - b\n* c\n - d"}, {"* a\n* c\n - d"}},
    {"format:thesis", "{}", {"<i>It is.</i> Because"}, {"<i>It is.</i>", "<i> </i> so", "no"}},
    {"format:title_case", "{}", {"The Cat In Rome", "NASA Is"}, {"The cat", "A b"}},
    {"ratio:overlap",
     R"({"reference_text": "abcdefgh", "percentage": 50})",
     {"abcdxy", "abcdz1"},
     {"abcdefgh", "xyz"}},
    {"ratio:sentence_balance", "{}", {"One. Two? Three!"}, {"One. Two?"}},
    {"ratio:sentence_type", "{}", {"One. Two. Three?"}, {"One. Two?"}},
    {"ratio:sentence_words", "{}", {"Abc de. Fgh ij. Klm no."}, {"Abc. Defg. Hij.", "Abc. Def."}},
    {"ratio:stop_words", R"({"percentage": 50})", {"the cat", "cats"}, {"the cat and the dog are"}},
    {"repeat:repeat_change",
     R"({"prompt_to_repeat": "Say it now"})",
     {"Shout it now"},
     {"Say it now", "Say that now"}},
    {"repeat:repeat_span",
     R"({"prompt_to_repeat": "abcdef", "n_start": 1, "n_end": 3})",
     {"bcd", " BCD "},
     {"bc", "bcde"}},
    {"sentence:alliteration_increment",
     "{}",
     {"No match here. Big bad x."},
     {"Big bad x. No match here."}},
    {"sentence:increment", R"({"small_n": 1})", {"One. Two two. Now three here."}, {"One. Two."}},
    {"sentence:keyword",
     R"({"N": 2, "word": "sea"})",
     {"One. The Sea."},
     {"The sea. Two.", "One. Seas.", "sea"}},
    {"words:alphabet", "{}", {"yes zebra apple", "Only"}, {"a c", "1 a"}},
    {"words:consonants", "{}", {"this string"}, {"a string"}},
    {"words:keywords_specific_position",
     R"({"keyword": "sea", "n": 2, "m": 3})",
     {"One. By the, SEA."},
     {"One. The sea.", "By the sea."}},
    {"words:last_first", "{}", {"It was red. Red is it."}, {"It was red. It is."}},
    {"words:no_consecutive", "{}", {"a cat ran"}, {"a big bad cat"}},
    {"words:palindrome",
     "{}",
     {repeated("level,", 10)},
     {repeated("level", 9), repeated("noon", 12)}},
    {"words:paragraph_last_first", "{}", {"Sea is the sea.\n\na b a"}, {"a b\na b a"}},
    {"words:prime_lengths", "{}", {"to the house"}, {"a to", "four"}},
    {"words:repeats", R"({"small_n": 2})", {"a A b"}, {"a, A. a"}},
    {"words:vowel", "{}", {"a big dog"}, {"a big dog met", "a\nb"}},
    {"words:words_position",
     R"({"keyword": "sea"})",
     {"the sea is a sea here.", "A Sea sea b"},
     {"sea the sea"}},
};

TEST(Ifbench, EveryKindOfTheTablePassesAndFailsByHand) {
  std::set<std::string> seen;
  for (const Case& one : kCases) {
    seen.insert(one.id);
    ASSERT_NE(find_checker(ifbench_checkers(), one.id), nullptr) << one.id;
    for (const auto& answer : one.passes)
      EXPECT_TRUE(follows(one.id, one.kwargs, answer)) << one.id << ": " << answer;
    for (const auto& answer : one.fails)
      EXPECT_FALSE(follows(one.id, one.kwargs, answer)) << one.id << ": " << answer;
  }
  EXPECT_EQ(seen.size(), ifbench_checkers().size());
}

TEST(Ifbench, UnknownKindsAreNotInTheTable) {
  for (const char* id : {"words:start_verb", "words:odd_even_syllables", "format:emoji", "x"})
    EXPECT_EQ(find_checker(ifbench_checkers(), id), nullptr) << id;
}

TEST(Ifbench, HostileAnswersEnd) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  for (const Case& one : kCases)
    for (const auto& answer :
         {bytes, std::string(20'000, '('), std::string(20'000, '"'), std::string(20'000, '.'),
          std::string(5'000, '\n') + "x", std::string(20'000, '*'), std::string("<i>")})
      follows(one.id, one.kwargs, answer);
}

}  // namespace
}  // namespace crumb::eval
