#include "tokenizer/pretokenizer.h"

#include <algorithm>
#include <array>

#include "tokenizer/unicode_tables.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer {
namespace {

CharClass search_class(uint32_t code_point) {
  const auto ranges = class_ranges();
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), code_point,
                       [](uint32_t value, const ClassRange& range) { return value < range.first; });
  if (after == ranges.begin() || code_point > (after - 1)->last) return CharClass::kOther;
  return (after - 1)->char_class;
}

struct Char {
  uint32_t value = kNoCodePoint;
  std::size_t end = 0;  // where the next character starts
  CharClass char_class = CharClass::kOther;

  bool is(CharClass wanted) const { return char_class == wanted; }
  bool is_newline() const { return value == '\n' || value == '\r'; }
};

constexpr CharClass ascii_class(uint8_t byte) {
  if ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z') return CharClass::kLetter;
  if (byte >= '0' && byte <= '9') return CharClass::kNumber;
  if (byte == ' ' || (byte >= '\t' && byte <= '\r')) return CharClass::kSpace;
  return CharClass::kOther;
}

Char char_at(std::string_view text, std::size_t i) {
  const uint8_t byte = static_cast<uint8_t>(text[i]);
  if (byte < 0x80) return {byte, i + 1, ascii_class(byte)};
  const CodePoint found = code_point_at(text, i);
  if (found.value == kNoCodePoint) return {kNoCodePoint, i + 1, CharClass::kOther};
  return {found.value, i + found.length, search_class(found.value)};
}

// The end of the run of characters of one class from text[i] on; i itself if there is none.
std::size_t run_end(std::string_view text, std::size_t i, CharClass wanted) {
  while (i < text.size()) {
    const Char found = char_at(text, i);
    if (!found.is(wanted)) break;
    i = found.end;
  }
  return i;
}

struct SpaceRun {
  std::size_t end = 0;            // after the run
  std::size_t last = 0;           // where its last character starts
  std::size_t after_newline = 0;  // after its last \r or \n; 0 if it has none
};

SpaceRun space_run(std::string_view text, std::size_t begin) {
  SpaceRun run{begin, begin, 0};
  while (run.end < text.size()) {
    const Char found = char_at(text, run.end);
    if (!found.is(CharClass::kSpace)) break;
    run.last = run.end;
    run.end = found.end;
    if (found.is_newline()) run.after_newline = found.end;
  }
  return run;
}

// \s+(?!\S)|\s+ : before other text the run leaves its last character to the next word, unless it
// is the only one.
std::size_t space_word_end(const SpaceRun& run, std::size_t begin, bool text_follows) {
  return text_follows && run.last > begin ? run.last : run.end;
}

// After the apostrophe at text[i], the end of 's 't 're 've 'm 'll 'd; i if none follows.
// `any_case` also takes U+017F, the long s: case folding makes it an s.
std::size_t contraction_end(std::string_view text, std::size_t i, bool any_case) {
  constexpr std::array<std::string_view, 7> kEndings = {"s", "t", "re", "ve", "m", "ll", "d"};
  const std::string_view rest = text.substr(i + 1, 2);
  const auto equals = [any_case](char found, char wanted) {
    return found == wanted || (any_case && found == wanted - 'a' + 'A');
  };
  for (const std::string_view ending : kEndings) {
    if (rest.size() >= ending.size() &&
        std::equal(ending.begin(), ending.end(), rest.begin(),
                   [&](char wanted, char found) { return equals(found, wanted); })) {
      return i + 1 + ending.size();
    }
  }
  if (any_case && rest == "\u017F") return i + 1 + rest.size();
  return i;
}

// The pattern of GPT-2. `digits_alone`: numbers are cut out before, so that each is a word and the
// text between two of them ends there for the pattern's look-ahead.
std::size_t gpt2_word_end(std::string_view text, std::size_t begin, bool digits_alone) {
  const Char first = char_at(text, begin);
  if (digits_alone && first.is(CharClass::kNumber)) return first.end;
  if (first.value == '\'') {
    const std::size_t end = contraction_end(text, begin, false);
    if (end != begin) return end;
  }
  if (!first.is(CharClass::kSpace)) return run_end(text, first.end, first.char_class);
  if (first.value == ' ' && first.end < text.size()) {
    const CharClass next = char_at(text, first.end).char_class;
    if (next != CharClass::kSpace && !(digits_alone && next == CharClass::kNumber)) {
      return run_end(text, first.end, next);
    }
  }
  const SpaceRun run = space_run(text, begin);
  const bool text_follows =
      run.end < text.size() && !(digits_alone && char_at(text, run.end).is(CharClass::kNumber));
  return space_word_end(run, begin, text_follows);
}

std::size_t gpt2_plain(std::string_view text, std::size_t begin) {
  return gpt2_word_end(text, begin, false);
}

std::size_t smollm(std::string_view text, std::size_t begin) {
  return gpt2_word_end(text, begin, true);
}

std::size_t qwen2_word_end(std::string_view text, std::size_t begin, int digits) {
  const Char first = char_at(text, begin);
  if (first.value == '\'') {
    const std::size_t end = contraction_end(text, begin, true);
    if (end != begin) return end;
  }
  if (first.is(CharClass::kNumber)) {
    std::size_t end = first.end;
    for (int i = 1; i < digits && end < text.size(); ++i) {
      const Char next = char_at(text, end);
      if (!next.is(CharClass::kNumber)) break;
      end = next.end;
    }
    return end;
  }
  if (first.is(CharClass::kLetter)) return run_end(text, first.end, CharClass::kLetter);
  const Char second = first.end < text.size() ? char_at(text, first.end) : Char{};
  const bool has_second = first.end < text.size();
  if (has_second && second.is(CharClass::kLetter) && !first.is_newline()) {
    return run_end(text, second.end, CharClass::kLetter);
  }
  const bool signs_after_space = first.value == ' ' && has_second && second.is(CharClass::kOther);
  if (first.is(CharClass::kOther) || signs_after_space) {
    std::size_t end = run_end(text, first.end, CharClass::kOther);
    while (end < text.size() && (text[end] == '\r' || text[end] == '\n')) ++end;
    return end;
  }
  const SpaceRun run = space_run(text, begin);
  if (run.after_newline != 0) return run.after_newline;
  return space_word_end(run, begin, run.end < text.size());
}

std::size_t qwen2(std::string_view text, std::size_t begin) {
  return qwen2_word_end(text, begin, 1);
}

std::size_t llama3(std::string_view text, std::size_t begin) {
  return qwen2_word_end(text, begin, 3);
}

constexpr Pretokenizer kPretokenizers[] = {{"gpt-2", gpt2_plain},
                                           {"llama-bpe", llama3, false, true},
                                           {"qwen2", qwen2, true},
                                           {"smollm", smollm}};

}  // namespace

const Pretokenizer* find_pretokenizer(std::string_view name) {
  for (const Pretokenizer& entry : kPretokenizers) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::string pretokenizer_names() {
  std::string names;
  for (const Pretokenizer& entry : kPretokenizers) {
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
  }
  return names;
}

}  // namespace crumb::tokenizer
