// Sentences and word tokens of English text as NLTK cuts them, for the checkers that count them.
//
// Sentences: the algorithm of punkt (Kiss and Strunk, "Unsupervised multilingual sentence boundary
// detection", 2006) as in nltk.tokenize 3.10, without that package's trained model: no licence is
// stated for it. Its three lists are our own here. Abbreviations are a short list and a rule by
// form. What the model knows of words and the cases they were seen in speaks only after an
// abbreviation, an ellipsis or an initial, before a capitalised word; there this is assumed: after
// "..." a content word begins a sentence and a function word does not (unless it is one of the
// starters), after an abbreviation nothing but the starters does, after an initial ("J. Smith") a
// function word does and anything else is a name, but after "A.", "B.", "I." any word does.
#pragma once
#include <cstdint>
#include <vector>

#include "bench/eval/unicode_text.h"

namespace crumb::eval {

// The sentences, closing quotes and brackets with the sentence before them. Never an empty one.
std::vector<TextView> sentences(TextView text);
int64_t count_sentences(TextView text);

// nltk.word_tokenize: sentences, each cut by NLTKWordTokenizer's rules (Penn Treebank with Unicode
// quotes): punctuation apart, "can't" as "ca", "n't", "U.S." whole but for a sentence's last
// period.
std::vector<Text> word_tokens(TextView text);

}  // namespace crumb::eval
