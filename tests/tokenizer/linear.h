// Does time grow as the text does? For text that is one word, one class or one start of a token
// from end to end, where a careless step would be quadratic.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <string>
#include <utility>

namespace crumb::tokenizer {

inline const std::pair<const char*, std::string> kMonotonous[] = {
    {"letters", "A"},
    {"spaces", " "},
    {"newlines", "\n"},
    {"emoji", "\U0001F600"},
    {"lone_continuations", "\x80"},
    {"no_utf8_at_all", "\xFF"},
    {"half_characters", "\xF0\x9F\x98"},
    {"digits", "1"},
    {"spaces_and_newlines", "   \n  "},
    {"apostrophes", "'"},
    {"half_special_tokens", "<|im_"},
};

// Processor time, so that a busy machine does not fail the test.
template <typename Work>
double seconds_for(const Work& work, const std::string& text) {
  double best = 1e9;
  for (int i = 0; i < 2; ++i) {
    const std::clock_t start = std::clock();
    work(text);
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  return best;
}

// Compares 256 KiB with 1 MiB of each. n log n makes it 4.4 times, caches and a noisy machine some
// more; quadratic would be 16 (and take minutes).
template <typename Work>
void expect_linear(const Work& work) {
  for (const auto& [name, unit] : kMonotonous) {
    std::string text;
    while (text.size() < (1 << 18)) text += unit;
    const double small = seconds_for(work, text);
    text += text;
    text += text;
    const double large = seconds_for(work, text);
    EXPECT_LE(large, 10 * small + 0.05) << name;
    testing::Test::RecordProperty(name, std::to_string(large));
  }
}

}  // namespace crumb::tokenizer
