// Texts as code points, with the meaning that Python's str and re give to words, space and case:
// the reference checkers of IFEval are Python. Matches are literal; there is no regex engine.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::eval {

using Text = std::u32string;
using TextView = std::u32string_view;

// Bytes that are no valid UTF-8 become U+FFFD, one each.
Text decode(std::string_view utf8);
std::string encode(TextView text);

bool is_word(char32_t c);  // re's \w: letters, numbers, underscore (no combining marks)
// The regex module's \w, which NLTK uses: letters, marks, decimal digits, Roman numerals,
// underscore. Known for marks below U+3100.
bool is_word_or_mark(char32_t c);
bool is_digit(char32_t c);  // re's \d: decimal digits of any script
bool is_letter(char32_t c);
bool is_space(char32_t c);  // str.isspace, re's \s
bool is_upper(char32_t c);
bool is_lower(char32_t c);

Text lower(TextView text);  // str.lower
// str.isupper, str.islower: at least one cased character and none of the other case.
bool all_upper(TextView text);
bool all_lower(TextView text);

TextView strip(TextView text);                                   // white space
TextView strip(TextView text, char32_t c);                       // that character
std::vector<TextView> split(TextView text, TextView separator);  // str.split(separator)
std::vector<TextView> split_space(TextView text);                // str.split()
std::vector<TextView> words(TextView text);                      // NLTK's RegexpTokenizer(r"\w+")
Text join(const std::vector<TextView>& parts, TextView separator);
Text without(TextView text, char32_t c);

// Where `needle` (not empty) is found at or after `from`, ignoring case character by character;
// npos if nowhere.
std::size_t find_ignoring_case(TextView text, TextView needle, std::size_t from = 0);
// Occurrences that do not overlap, ignoring case; 0 for an empty needle.
int64_t count_ignoring_case(TextView text, TextView needle);
// re.search(r"\bNEEDLE\b", text, IGNORECASE).
bool has_whole_word(TextView text, TextView needle);

}  // namespace crumb::eval
