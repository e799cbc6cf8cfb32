// Which language a text is in: an approximation of the langdetect library (naive Bayes over the
// 1- to 3-grams of 55 languages, whose 2 MB of profiles are not here).
//
// The script decides where one language uses it; Cyrillic, Arabic and Devanagari are divided by
// letters and words that only one of their languages has, Latin by the share of function words of
// 19 languages. It agrees with langdetect on running text of a sentence or more; short texts, lists
// of names and mixed languages may differ, and languages outside the tables are never found.
#pragma once
#include <string_view>

#include "bench/eval/unicode_text.h"

namespace crumb::eval {

// ISO 639-1, as langdetect writes it ("en", "zh-cn"); "" if the text has letters but nothing to
// tell by; kNoLanguage if it has no letters, where langdetect throws.
inline constexpr std::string_view kNoLanguage = "none";
std::string_view detect_language(TextView text);

}  // namespace crumb::eval
