#include "bench/eval/sentences.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_set>

namespace crumb::eval {
namespace {

using Words = std::unordered_set<Text>;

Words words_of(TextView list) {
  Words set;
  for (const TextView word : split_space(list)) set.emplace(word);
  return set;
}

// Words that end in a period without ending a sentence: titles, months, states, companies, streets.
// Those that are common words as well ("no.", "fig.", "sat.") are not here.
const Words& abbreviations() {
  static const Words words = words_of(
      UR"(adm capt cmdr col dr fr gen gov hon jr lt maj messrs mr mrs ms prof rep reps rev sen sgt sr
      st supt apr aug dec feb fri jan jun jul nov oct sep sept thu thurs tue tues wed ala ariz calif
      colo conn fla ill kan mich minn mont neb nev okla penn tenn tex wis wyo assn bros co corp inc
      llc ltd mfg mg ave blvd ft hwy mt rd approx cf ct viz vs va vt)");
  return words;
}
// An abbreviation by its form: one letter ("p. 3", "J. Smith"), or letters with periods between
// them
// ("U.S.", "a.m.", "Ph.D."). As with the reference, "e.g." and "i.e." are none, nor are letters
// that are words, list marks or unknowns more often.
bool looks_abbreviated(TextView stem) {
  if (stem == U"e.g" || stem == U"i.e") return false;
  if (stem.size() == 1 && TextView(U"abioquxyz").find(stem[0]) != TextView::npos) return false;
  std::size_t letters = 0;  // since the last period
  for (const char32_t c : stem) {
    letters = c == U'.' ? 0 : letters + 1;
    if (letters > (stem.size() == 1 ? 1 : 2) || (c != U'.' && !is_lower(c))) return false;
  }
  return letters > 0 && (stem.size() == 1 || stem.find(U'.') != TextView::npos);
}
// Words that begin a sentence even behind an abbreviation.
const Words& starters() {
  static const Words words = words_of(
      UR"(although and but despite even he however i if in indeed instead it many meanwhile moreover
      most nevertheless nonetheless nor she since so some still such that the then there these they
      this those though thus under when while yet)");
  return words;
}
// Words that are written in both cases in the middle of sentences and of titles.
const Words& function_words() {
  static const Words words = words_of(
      UR"(a about above across after again against all almost along already also although always am
      among an and another any are around as at away back be because been before behind being below
      between both but by can could did do does down during each either else even ever every few
      first for from further get go good had has have he her here hers him his how however i if in
      indeed instead into is it its just last less let like little long made make many may me might
      mine more most much must my never new next no nor not nothing now of off often old on once one
      only or other our out over own perhaps rather said same second see she should since so some
      still such take than that the their them then there these they this those though three through
      thus time to today together too toward two under until up upon us very was we well were what
      when where whether which while who whom whose why will with within without would year yes yet
      you)");
  return words;
}

bool is_end(char32_t c) { return c == '.' || c == '?' || c == '!'; }
bool is_non_word(char32_t c) {
  return TextView(U")\";}]*:@'({[‘’“”«»?!").find(c) != TextView::npos;
}
bool may_start_word(char32_t c) {
  return TextView(U"(\"`{[:;&#*@)}]-,").find(c) == TextView::npos && !is_space(c);
}
// Python's string.whitespace.
bool is_ascii_space(char32_t c) { return c == ' ' || (c >= 9 && c <= 13); }

std::size_t run_of(TextView text, std::size_t i, char32_t c) {
  std::size_t end = i;
  while (end < text.size() && text[end] == c) ++end;
  return end - i;
}

// Length of "--", "..", ". . ." at i, 0 if there is none.
std::size_t multi_char(TextView text, std::size_t i) {
  if (const std::size_t n = run_of(text, i, '-'); n >= 2) return n;
  if (const std::size_t n = run_of(text, i, '.'); n >= 2) return n;
  std::size_t end = i, pairs = 0;
  while (end + 1 < text.size() && text[end] == '.' && is_space(text[end + 1])) end += 2, ++pairs;
  if (pairs >= 2 && end < text.size() && text[end] == '.') return end + 1 - i;
  return pairs >= 3 ? end - 1 - i : 0;
}

bool ends_word(TextView text, std::size_t i, bool or_comma = true) {
  if (i >= text.size() || is_space(text[i]) || is_non_word(text[i]) || multi_char(text, i) > 0)
    return true;
  return or_comma && text[i] == ',' && ends_word(text, i + 1, false);
}

// punkt's own tokens: words with their periods, punctuation, dashes, ellipses.
std::vector<TextView> punkt_words(TextView line) {
  std::vector<TextView> found;
  for (std::size_t i = 0; i < line.size();) {
    if (is_space(line[i])) {
      ++i;
      continue;
    }
    std::size_t length = multi_char(line, i);
    if (length == 0) {
      length = 1;
      if (may_start_word(line[i]))
        while (!ends_word(line, i + length)) ++length;
    }
    found.push_back(line.substr(i, length));
    i += length;
  }
  return found;
}

struct Token {
  TextView text;
  Text type;  // lower case, numbers as one type
  bool sentence_break = false, abbreviation = false, ellipsis = false;

  bool is_initial() const {
    return text.size() == 2 && text[1] == '.' && is_word(text[0]) && !is_digit(text[0]);
  }
  Text type_without_period() const {
    return type.size() > 1 && type.back() == '.' ? type.substr(0, type.size() - 1) : type;
  }
};

// ^-?[.,]?\d[\d,.-]*\.?$
bool is_numeric(TextView word) {
  std::size_t i = 0;
  if (i < word.size() && word[i] == '-') ++i;
  if (i < word.size() && (word[i] == '.' || word[i] == ',')) ++i;
  if (i >= word.size() || !is_digit(word[i])) return false;
  return std::all_of(word.begin() + static_cast<std::ptrdiff_t>(i), word.end(),
                     [](char32_t c) { return is_digit(c) || c == ',' || c == '.' || c == '-'; });
}

Token annotated(TextView word) {
  Token token;
  token.text = word;
  token.type = is_numeric(word) ? Text(U"##number##") : lower(word);
  if (word.size() == 1 && is_end(word[0])) {
    token.sentence_break = true;
  } else if (word.size() >= 2 && run_of(word, 0, '.') == word.size()) {
    token.ellipsis = true;
  } else if (word.back() == '.' && !word.ends_with(U"..")) {
    const Text stem = lower(word.substr(0, word.size() - 1));
    const std::size_t hyphen = stem.rfind(U'-');
    const Text last = hyphen == Text::npos ? stem : stem.substr(hyphen + 1);
    const bool known = looks_abbreviated(last) || abbreviations().contains(last);
    (known ? token.abbreviation : token.sentence_break) = true;
  }
  return token;
}

// punkt's second pass, on a token that ends in a period and the one after it.
void reclassify(Token& token, const Token& next) {
  if (token.text.back() != '.') return;
  const char32_t first = next.text[0];
  const bool punctuation =
      next.text.size() == 1 && TextView(U";:,.!?").find(first) != TextView::npos;
  const bool no_starter = punctuation || is_lower(first);
  const Text next_type = next.sentence_break ? next.type_without_period() : next.type;
  const bool initial = token.is_initial();
  const bool common = function_words().contains(next_type);
  if ((token.abbreviation || token.ellipsis) && !initial) {
    const bool content_word = token.ellipsis && is_upper(first) && !common;
    const bool starter = is_upper(first) && starters().contains(next_type);
    if (!no_starter && (content_word || starter)) token.sentence_break = true;
    return;
  }
  if (!initial && token.type_without_period() != U"##number##") return;
  const bool lists = TextView(U"abi").find(token.type[0]) != TextView::npos;  // "A. Apples"
  if (no_starter || (initial && is_upper(first) && !common && !lists)) {
    token.sentence_break = false;
    token.abbreviation = true;
  }
}

// Is there a sentence break in `context` with a token after it?
bool breaks_sentence(TextView context) {
  std::vector<Token> tokens;
  for (const TextView line : split(context, U"\n"))
    for (const TextView word : punkt_words(line)) tokens.push_back(annotated(word));
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    reclassify(tokens[i], tokens[i + 1]);
    if (tokens[i].sentence_break) return true;
  }
  return false;
}

struct Span {
  std::size_t begin = 0, end = 0;
};

// A sentence end that may be one: the word before it, its place, and what follows.
struct Candidate {
  Span word;
  std::size_t at = 0;
  std::size_t context_end = 0;
  std::optional<std::size_t> next_word;  // if white space and a word follow
};

std::optional<Candidate> candidate_at(TextView text, std::size_t at) {
  if (!is_end(text[at]) || at + 1 >= text.size()) return std::nullopt;
  Candidate candidate;
  candidate.at = at;
  candidate.context_end = at + 2;
  if (is_non_word(text[at + 1])) return candidate;
  std::size_t next = at + 1;
  while (next < text.size() && is_space(text[next])) ++next;
  if (next == at + 1 || next == text.size()) return std::nullopt;
  candidate.next_word = next;
  candidate.context_end = next;
  while (candidate.context_end < text.size() && !is_space(text[candidate.context_end]))
    ++candidate.context_end;
  return candidate;
}

// Of candidates whose words overlap ("acting!!! ") only the last one counts.
std::vector<Candidate> candidates(TextView text) {
  std::vector<Candidate> found;
  std::optional<Candidate> held;
  Span word;
  for (std::size_t at = 0; at < text.size(); ++at) {
    auto candidate = candidate_at(text, at);
    if (!candidate) continue;
    std::size_t begin = word.begin;
    // As NLTK: white space just behind the last word is not seen.
    for (std::size_t i = at; i > word.end + 1; --i)
      if (is_ascii_space(text[i - 1])) {
        begin = i;
        break;
      }
    candidate->word = {begin, at};
    if (held && word.end <= begin) found.push_back(*held);
    held = candidate;
    word = candidate->word;
  }
  if (held) found.push_back(*held);
  return found;
}

std::vector<Span> raw_sentences(TextView text) {
  std::vector<Span> spans;
  std::size_t begin = 0;
  for (const Candidate& candidate : candidates(text)) {
    if (!breaks_sentence(
            text.substr(candidate.word.begin, candidate.context_end - candidate.word.begin)))
      continue;
    spans.push_back({begin, candidate.at + 1});
    begin = candidate.next_word.value_or(candidate.at + 1);
  }
  std::size_t end = text.size();
  while (end > 0 && is_space(text[end - 1])) --end;
  spans.push_back({begin, end});
  return spans;
}

// Closing marks at the start of a sentence belong to the one before: how many, and how much white
// space follows them. Nothing if what follows is neither space, "--" nor the end of a line.
struct Closing {
  std::size_t marks = 0, with_space = 0;
};
std::optional<Closing> closing_marks(TextView sentence) {
  Closing closing;
  while (closing.marks < sentence.size() &&
         TextView(U"\"')]}‘’“”«»").find(sentence[closing.marks]) != TextView::npos) {
    ++closing.marks;
    const TextView rest = sentence.substr(closing.marks);
    if (!rest.empty() && !is_space(rest[0]) && !rest.starts_with(U"--")) continue;
    closing.with_space = closing.marks;
    while (closing.with_space < sentence.size() && is_space(sentence[closing.with_space]))
      ++closing.with_space;
    return closing;
  }
  return std::nullopt;
}

TextView cut(TextView text, std::size_t begin, std::size_t end) {
  return begin < end ? text.substr(begin, end - begin) : TextView();
}

}  // namespace

std::vector<TextView> sentences(TextView text) {
  const auto spans = raw_sentences(text);
  std::vector<TextView> found;
  std::size_t moved = 0;  // of this sentence's beginning, to the one before
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const std::size_t begin = spans[i].begin + moved;
    std::optional<Closing> closing;
    if (i + 1 < spans.size())
      closing = closing_marks(cut(text, spans[i + 1].begin, spans[i + 1].end));
    moved = closing ? closing->with_space : 0;
    const std::size_t end = closing ? spans[i + 1].begin + closing->marks : spans[i].end;
    const TextView sentence = cut(text, begin, end);
    if (!sentence.empty()) found.push_back(sentence);
  }
  return found;
}

int64_t count_sentences(TextView text) { return static_cast<int64_t>(sentences(text).size()); }

}  // namespace crumb::eval
