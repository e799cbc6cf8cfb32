// Overlap of a text with a reference: ROUGE (Lin, 2004), BLEU (Papineni et al., 2002) and chrF
// (Popovic, 2015), each as its usual Python package computes it.
#pragma once
#include <string_view>
#include <vector>

namespace crumb::eval {

// F1 of rouge_score.RougeScorer(use_stemmer=False): lower case, every run of characters outside
// [a-z0-9] is a space. N = 1, 2 by n-grams, L by the longest common subsequence. 0 if either has no
// tokens (or no n-gram).
double rouge_n(std::string_view text, std::string_view reference, int n);
double rouge_l(std::string_view text, std::string_view reference);

// sacrebleu's BLEU in [0, 100]: tokenizer 13a, up to 4-grams, exponential smoothing, brevity
// penalty. The corpus form sums the counts of all pairs; the sentence form uses only the orders
// that the text has (effective_order), as sacrebleu.sentence_bleu does.
struct Pair {
  std::string_view text, reference;
};
double corpus_bleu(const std::vector<Pair>& pairs);
double sentence_bleu(std::string_view text, std::string_view reference);

// sacrebleu's sentence_chrf in [0, 100]: character 1- to 6-grams without white space, beta 2,
// averaged over the orders that both texts have.
double chrf(std::string_view text, std::string_view reference);

}  // namespace crumb::eval
