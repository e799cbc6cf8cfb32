// IFBench's instructions, with the meaning of its instructions.py (allenai/IFBench, commit
// db69a6f0), oddities included. Not in the table, so not scored: words:start_verb (a part-of-speech
// tagger), words:odd_even_syllables (a pronouncing dictionary), format:emoji (the list of emoji),
// custom:csv_special_character and the kinds that its 150 prompts here do not ask for.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "bench/eval/ifbench_text.h"
#include "bench/eval/sentences.h"

namespace crumb::eval {
namespace {

bool is_one_of(TextView word, TextView list) {
  const auto words = split_space(list);
  return std::find(words.begin(), words.end(), word) != words.end();
}

int64_t count_ends(const std::vector<TextView>& list, char32_t end) {
  return std::count_if(list.begin(), list.end(),
                       [end](TextView one) { return !one.empty() && one.back() == end; });
}

// count -------------------------------------------------------------------------------------------

bool word_count_range(const Arguments& a, TextView answer) {
  const auto count = std::ssize(words(answer));
  return a.integer("min_words") <= count && count <= a.integer("max_words");
}
bool unique_word_count(const Arguments& a, TextView answer) {
  const Text small = lower(answer);
  std::set<TextView> unique;
  for (const TextView word : split_space(small))
    unique.insert(strip_both(word, kPunctuationOrSpace));
  return std::ssize(unique) >= a.integer("N");
}
// As the reference, "And" and "and," are two different ones.
bool conjunctions(const Arguments& a, TextView answer) {
  std::set<TextView> unique;
  for (const TextView word : split_space(answer))
    if (is_one_of(lower(strip_both(word, kPunctuationOrSpace)), U"and but for nor or so yet"))
      unique.insert(word);
  return std::ssize(unique) >= a.integer("small_n");
}
// \bNAME\b, in its own case.
bool has_name(TextView text, TextView name) {
  for (std::size_t at = text.find(name); at != TextView::npos; at = text.find(name, at + 1)) {
    const std::size_t end = at + name.size();
    if ((at == 0 || !is_word(text[at - 1])) && (end == text.size() || !is_word(text[end])))
      return true;
  }
  return false;
}
bool person_names(const Arguments& a, TextView answer) {
  constexpr TextView kNames =
      U"Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte "
      U"Alexander "
      U"Amelia Benjamin Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel "
      U"Ella Jacob Scarlett Nathan Victoria Elijah Layla Nicholas Audrey David Hannah Christopher "
      U"Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan";
  const auto names = split_space(kNames);
  return std::count_if(names.begin(), names.end(),
                       [&](TextView name) { return has_name(answer, name); }) >= a.integer("N");
}
bool numbers(const Arguments& a, TextView answer) {
  const Text plain = without_punctuation(answer);
  return std::ssize(digit_runs(plain)) == a.integer("N");
}
bool punctuation_cover(const Arguments&, TextView answer) {
  if (!contains(answer, U"!?") && !contains(answer, U"?!") && !contains(answer, U"\u203D"))
    return false;
  Text rest(answer);
  const std::size_t first = rest.find(U"?!");
  const std::size_t other = first != Text::npos ? first : rest.find(U"!?");
  if (other != Text::npos) rest.erase(other, 2);
  const TextView all = U".,!?;:";
  return std::all_of(all.begin(), all.end(), [&](char32_t c) { return is_in(c, rest); });
}
bool pronouns(const Arguments& a, TextView answer) {
  constexpr TextView kPronouns =
      U"i me we us you he him she her it they them my mine our ours your yours his hers its their "
      U"theirs myself ourselves yourself yourselves himself herself itself themselves this that "
      U"these "
      U"those who whom whose which what whoever whomever whatever whichever anybody anyone "
      U"anything "
      U"everybody everyone everything nobody nothing somebody someone something each either "
      U"neither "
      U"both all some any none";
  Text text = lower(answer);
  std::replace(text.begin(), text.end(), U'/', U' ');
  const auto tokens = word_tokens(text);
  return std::count_if(tokens.begin(), tokens.end(), [&](const Text& token) {
           return is_one_of(token, kPronouns);
         }) >= a.integer("N");
}
bool words_japanese(const Arguments& a, TextView answer) {
  const int64_t n = a.integer("N");
  int64_t place = 0;
  for (const TextView whole : split_space(answer)) {
    const TextView word = strip_both(whole, kPunctuationOrSpace);
    const bool asked =
        ++place % n == 0 && !word.empty() && !std::all_of(word.begin(), word.end(), is_digit);
    const bool japanese = std::any_of(word.begin(), word.end(), [](char32_t c) {
      return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x4E00 && c <= 0x9FFF);
    });
    if (asked && !japanese) return false;
  }
  return true;
}
bool keywords_multiple(const Arguments& a, TextView answer) {
  const Text small = lower(answer);
  const std::pair<const char*, int64_t> wanted[] = {
      {"keyword1", 1}, {"keyword2", 2}, {"keyword3", 3}, {"keyword4", 5}, {"keyword5", 7}};
  return std::all_of(std::begin(wanted), std::end(wanted), [&](const auto& one) {
    const Text keyword = lower(a.text(one.first));
    return std::ssize(split(small, keyword)) - 1 == one.second;
  });
}

// ratio -------------------------------------------------------------------------------------------

// NLTK's English stop words; those with an apostrophe are no \w+ and so never counted.
bool stop_words(const Arguments& a, TextView answer) {
  constexpr TextView kStop =
      U"a about above after again against ain all am an and any are aren as at be because been "
      U"before "
      U"being below between both but by can couldn d did didn do does doesn doing don down during "
      U"each "
      U"few for from further had hadn has hasn have haven having he her here hers herself him "
      U"himself "
      U"his how i if in into is isn it its itself just ll m ma me mightn more most mustn my myself "
      U"needn no nor not now o of off on once only or other our ours ourselves out over own re s "
      U"same "
      U"shan she should shouldn so some such t than that the their theirs them themselves then "
      U"there "
      U"these they this those through to too under until up ve very was wasn we were weren what "
      U"when "
      U"where which while who whom why will with won wouldn y you your yours yourself yourselves";
  const auto all = words(answer);
  if (all.empty()) return false;
  const auto stops = std::count_if(all.begin(), all.end(),
                                   [&](TextView word) { return is_one_of(lower(word), kStop); });
  return static_cast<double>(stops) / static_cast<double>(all.size()) * 100 <=
         a.number("percentage");
}
bool sentence_type(const Arguments&, TextView answer) {
  const auto list = sentences(answer);
  return count_ends(list, '.') == 2 * count_ends(list, '?');
}
bool sentence_balance(const Arguments&, TextView answer) {
  const auto list = sentences(answer);
  const int64_t questions = count_ends(list, '?');
  return count_ends(list, '.') == questions && questions == count_ends(list, '!');
}
// The share of the answer's different character trigrams that the reference text has too.
bool overlap(const Arguments& a, TextView answer) {
  const auto trigrams = [](TextView text) {
    std::set<TextView> all;
    for (std::size_t i = 0; i + 3 <= text.size(); ++i) all.insert(text.substr(i, 3));
    return all;
  };
  const Text reference = a.text("reference_text");
  const auto own = trigrams(answer), other = trigrams(reference);
  if (own.empty()) return false;
  const auto same =
      std::count_if(own.begin(), own.end(), [&](TextView one) { return other.contains(one); });
  const double share = static_cast<double>(same) / static_cast<double>(own.size()) * 100;
  return std::abs(share - a.number("percentage")) <= 2;
}
// Three sentences of the same length.
bool sentence_words(const Arguments&, TextView answer) {
  const auto list = sentences(answer);
  return list.size() == 3 && std::all_of(list.begin(), list.end(), [&](TextView one) {
           return strip(one).size() == strip(list[0]).size();
         });
}

// words -------------------------------------------------------------------------------------------

bool alphabet(const Arguments&, TextView answer) {
  const Text plain = without_punctuation(answer);
  const auto list = split_space(plain);
  if (list.empty()) return false;
  const auto is_small = [](char32_t c) { return c >= 'a' && c <= 'z'; };
  const Text first = lower(list[0]);
  if (!is_small(first[0])) return false;
  char32_t letter = first[0];
  for (std::size_t i = 1; i < list.size(); ++i) {
    letter = letter == 'z' ? U'a' : letter + 1;
    if (lower(list[i])[0] != letter) return false;
  }
  return true;
}
bool vowel(const Arguments&, TextView answer) {
  const Text text = lower(strip(answer));
  if (contains(text, U"\n")) return false;
  const TextView vowels = U"aeiou";
  return std::count_if(vowels.begin(), vowels.end(), [&](char32_t c) { return is_in(c, text); }) <=
         3;
}
bool consonants(const Arguments&, TextView answer) {
  const Text small = lower(answer);
  const auto is_consonant = [](char32_t c) { return is_in(c, U"bcdfghjklmnpqrstvwxyz"); };
  const auto list = split_space(small);
  return std::all_of(list.begin(), list.end(), [&](TextView word) {
    return std::adjacent_find(word.begin(), word.end(), [&](char32_t x, char32_t y) {
             return is_consonant(x) && is_consonant(y);
           }) != word.end();
  });
}
bool palindrome(const Arguments&, TextView answer) {
  const Text plain = lower(without_punctuation(answer));
  const auto list = split_space(plain);
  return std::count_if(list.begin(), list.end(), [](TextView word) {
           return word.size() >= 5 && std::equal(word.begin(), word.end(), word.rbegin());
         }) >= 10;
}
bool prime_lengths(const Arguments&, TextView answer) {
  constexpr std::size_t kPrimes[] = {2,  3,  5,  7,  11, 13, 17, 19, 23, 29, 31, 37, 41,
                                     43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97};
  const Text plain = without_punctuation(answer);
  const auto list = split_space(plain);
  return std::all_of(list.begin(), list.end(), [&](TextView word) {
    return std::find(std::begin(kPrimes), std::end(kPrimes), word.size()) != std::end(kPrimes);
  });
}
bool repeats(const Arguments& a, TextView answer) {
  const Text plain = without_punctuation(lower(answer));
  std::map<TextView, int64_t> counts;
  for (const TextView word : split_space(plain)) ++counts[word];
  const int64_t most = a.integer("small_n");
  return std::all_of(counts.begin(), counts.end(),
                     [&](const auto& one) { return one.second <= most; });
}
bool last_first(const Arguments&, TextView answer) {
  const auto list = sentences(answer);
  for (std::size_t i = 0; i + 1 < list.size(); ++i) {
    const auto before = split_space(strip_right(list[i], kPunctuationOrSpace));
    const auto after = split_space(strip_left(list[i + 1], kPunctuationOrSpace));
    if (before.empty() || after.empty() || lower(before.back()) != lower(after.front()))
      return false;
  }
  return true;
}
bool paragraph_last_first(const Arguments&, TextView answer) {
  const Text small = lower(answer);
  for (const TextView paragraph : lines_of(small)) {
    const auto list = split_space(strip_both(strip(paragraph), kPunctuationOrSpace));
    if (!list.empty() && list.front() != list.back()) return false;
  }
  return true;
}
bool no_consecutive(const Arguments&, TextView answer) {
  const Text plain = without_punctuation(lower(answer));
  const auto list = split_space(plain);
  return std::adjacent_find(list.begin(), list.end(),
                            [](TextView x, TextView y) { return x[0] == y[0]; }) == list.end();
}
bool keywords_specific_position(const Arguments& a, TextView answer) {
  const int64_t n = a.integer("n"), m = a.integer("m");
  const auto list = sentences(answer);
  if (n < 1 || m < 1 || std::ssize(list) < n) return false;
  auto tokens = word_tokens(list[static_cast<std::size_t>(n - 1)]);
  std::erase_if(tokens, [](const Text& token) {
    return std::none_of(token.begin(), token.end(),
                        [](char32_t c) { return c != '_' && is_word(c); });
  });
  return std::ssize(tokens) >= m &&
         lower(tokens[static_cast<std::size_t>(m - 1)]) == lower(strip(a.text("keyword")));
}
bool words_position(const Arguments& a, TextView answer) {
  const auto tokens = word_tokens(answer);
  if (tokens.size() < 2) return false;
  const std::size_t back = contains(kPunctuation, tokens.back()) ? 3 : 2;
  const Text keyword = lower(strip(a.text("keyword")));
  return tokens.size() >= back && lower(tokens[1]) == keyword &&
         lower(tokens[tokens.size() - back]) == keyword;
}

// sentence ----------------------------------------------------------------------------------------

// Words that begin as the next one does, each run counted once more than its pairs.
int64_t alliteration_of(TextView sentence) {
  const Text small = lower(sentence);
  std::vector<TextView> list;
  for (const TextView word : split_space(small))
    if (const TextView clean = strip_left(word, kPunctuationOrSpace); !clean.empty())
      list.push_back(clean);
  int64_t count = 0;
  bool inside = false;
  for (std::size_t i = 0; i + 1 < list.size(); ++i) {
    const bool same = list[i][0] == list[i + 1][0];
    if (same) count += inside ? 1 : 2;
    inside = same;
  }
  return count;
}
bool alliteration_increment(const Arguments&, TextView answer) {
  int64_t before = -1;
  for (const TextView sentence : sentences(answer)) {
    const int64_t count = alliteration_of(sentence);
    if (count <= before) return false;
    before = count;
  }
  return true;
}
bool increment(const Arguments& a, TextView answer) {
  const int64_t step = a.integer("small_n");
  int64_t before = -1;
  for (const TextView sentence : sentences(answer)) {
    const Text plain = without_punctuation(sentence);
    const auto count = std::ssize(split_space(plain));
    if (before >= 0 && count != before + step) return false;
    before = count;
  }
  return true;
}
bool sentence_keyword(const Arguments& a, TextView answer) {
  const int64_t n = a.integer("N");
  const auto list = sentences(answer);
  return n >= 1 && std::ssize(list) >= n &&
         has_whole_word(list[static_cast<std::size_t>(n - 1)], a.text("word"));
}

constexpr Checker kCheckers[] = {
    {"count:conjunctions", conjunctions},
    {"count:keywords_multiple", keywords_multiple},
    {"count:numbers", numbers},
    {"count:person_names", person_names},
    {"count:pronouns", pronouns},
    {"count:punctuation", punctuation_cover},
    {"count:unique_word_count", unique_word_count},
    {"count:word_count_range", word_count_range},
    {"count:words_japanese", words_japanese},
    {"ratio:overlap", overlap},
    {"ratio:sentence_balance", sentence_balance},
    {"ratio:sentence_type", sentence_type},
    {"ratio:sentence_words", sentence_words},
    {"ratio:stop_words", stop_words},
    {"sentence:alliteration_increment", alliteration_increment},
    {"sentence:increment", increment},
    {"sentence:keyword", sentence_keyword},
    {"words:alphabet", alphabet},
    {"words:consonants", consonants},
    {"words:keywords_specific_position", keywords_specific_position},
    {"words:last_first", last_first},
    {"words:no_consecutive", no_consecutive},
    {"words:palindrome", palindrome},
    {"words:paragraph_last_first", paragraph_last_first},
    {"words:prime_lengths", prime_lengths},
    {"words:repeats", repeats},
    {"words:vowel", vowel},
    {"words:words_position", words_position},
};

}  // namespace

std::span<const Checker> ifbench_checkers() {
  static const std::vector<Checker> all = [] {
    std::vector<Checker> rows(std::begin(kCheckers), std::end(kCheckers));
    const auto formats = ifbench_format_checkers();
    rows.insert(rows.end(), formats.begin(), formats.end());
    return rows;
  }();
  return all;
}

}  // namespace crumb::eval
