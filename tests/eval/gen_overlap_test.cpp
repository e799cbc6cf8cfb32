#include "bench/eval/gen_overlap.h"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

namespace crumb::eval {
namespace {

constexpr const char* kTexts[] = {
    "The quick brown fox jumps over the lazy dog.",
    "A quick brown dog jumps over the lazy fox!",
    "It costs $3,000.50 - about 1,000-2,000 euros; isn't that \"cheap\"?",
    "It costs 3,000 dollars, i.e. about 2,000 euros. That is cheap.",
    "the the the the",
    "the cat sat on the mat",
    "Größe zählt nicht, sagt Zoë & Co.",
    "Die Größe zählt, sagt Zoe &amp; Co.",
    "one",
    "one two",
    "",
    "a b c d e f g h",
    "hgf edc ba",
};

// Text, reference, then what rouge-score 0.1.2 (rouge1, rouge2, rougeL, no stemmer) and sacrebleu
// 2.6.0 (sentence_bleu, sentence_chrf) give.
struct Expected {
  int text, reference;
  double rouge1, rouge2, rouge_l, bleu, chrf;
};
constexpr Expected kExpected[] = {
    {0, 1, 0.888888889, 0.500000000, 0.666666667, 33.5689193, 71.3761601},
    {2, 3, 0.689655172, 0.370370370, 0.689655172, 7.1585616, 41.7375946},
    {4, 5, 0.400000000, 0.000000000, 0.400000000, 11.5215910, 15.1595667},
    {6, 7, 0.705882353, 0.400000000, 0.705882353, 26.0847430, 53.3260718},
    {8, 9, 0.666666667, 0.000000000, 0.666666667, 36.7879441, 43.7262357},
    {9, 8, 0.666666667, 0.000000000, 0.666666667, 50.0000000, 75.6578947},
    {0, 0, 1.000000000, 1.000000000, 1.000000000, 100.0000000, 100.0000000},
    {11, 12, 0.000000000, 0.000000000, 0.000000000, 0.0000000, 16.6666667},
    {5, 10, 0, 0, 0, 0, 0},
    {10, 5, 0, 0, 0, 0, 0},
    {8, 8, 1, 0, 1, 100, 100},
};

TEST(Overlap, AgreesWithThePackages) {
  for (const Expected& one : kExpected) {
    const char* text = kTexts[one.text];
    const char* reference = kTexts[one.reference];
    SCOPED_TRACE(std::string(text) + " | " + reference);
    EXPECT_NEAR(rouge_n(text, reference, 1), one.rouge1, 1e-8);
    EXPECT_NEAR(rouge_n(text, reference, 2), one.rouge2, 1e-8);
    EXPECT_NEAR(rouge_l(text, reference), one.rouge_l, 1e-8);
    EXPECT_NEAR(sentence_bleu(text, reference), one.bleu, 1e-6);
    EXPECT_NEAR(chrf(text, reference), one.chrf, 1e-6);
  }
}

TEST(Overlap, CorpusBleuSumsCounts) {
  std::vector<Pair> pairs;
  for (const Expected& one : std::span(kExpected).first(5))
    pairs.push_back({kTexts[one.text], kTexts[one.reference]});
  EXPECT_NEAR(corpus_bleu(pairs), 14.197336871378393, 1e-9);
  EXPECT_EQ(corpus_bleu({{"one", "one two"}}), 0);  // no 4-grams at all
  EXPECT_EQ(corpus_bleu({}), 0);
}

TEST(Overlap, BytesThatAreNoTextEnd) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  for (const std::string& text : {bytes, std::string(3000, '.'), std::string(3000, '\n')}) {
    rouge_l(text, bytes);
    sentence_bleu(text, bytes);
    EXPECT_NEAR(chrf(bytes, bytes), 100, 1e-9);
  }
}

}  // namespace
}  // namespace crumb::eval
