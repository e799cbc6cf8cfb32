#include "bench/eval/gen_overlap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>

#include "bench/eval/unicode_text.h"

namespace crumb::eval {
namespace {

constexpr int kBleuOrder = 4, kChrfOrder = 6;

template <class Item>
using Counts = std::map<std::vector<Item>, int64_t>;

template <class Item>
Counts<Item> ngrams(const std::vector<Item>& items, int n) {
  Counts<Item> counts;
  for (auto at = items.begin(); items.end() - at >= n; ++at) ++counts[{at, at + n}];
  return counts;
}

template <class Item>
int64_t total(const Counts<Item>& counts) {
  int64_t sum = 0;
  for (const auto& [gram, count] : counts) sum += count;
  return sum;
}

template <class Item>
int64_t common(const Counts<Item>& a, const Counts<Item>& b) {
  int64_t sum = 0;
  for (const auto& [gram, count] : a)
    if (const auto other = b.find(gram); other != b.end()) sum += std::min(count, other->second);
  return sum;
}

double f1(int64_t same, int64_t of_text, int64_t of_reference) {
  const double precision =
      static_cast<double>(same) / static_cast<double>(std::max<int64_t>(of_text, 1));
  const double recall =
      static_cast<double>(same) / static_cast<double>(std::max<int64_t>(of_reference, 1));
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

std::vector<std::string> rouge_tokens(std::string_view text) {
  std::vector<std::string> tokens(1);
  for (const char32_t c : lower(decode(text))) {
    const bool kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (kept) {
      tokens.back() += static_cast<char>(c);
    } else if (!tokens.back().empty()) {
      tokens.emplace_back();
    }
  }
  if (tokens.back().empty()) tokens.pop_back();
  return tokens;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_stop(char c) { return c == '.' || c == ','; }
// [\{-\~\[-\` -\&\(-\+\:-\@\/]
bool is_symbol(char c) {
  return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
         (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

// Puts spaces around each pair of characters for which `first` and `second` hold, as PATTERN says.
template <class First, class Second>
std::string apart(const std::string& text, First first, Second second, bool space_before,
                  bool space_after) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i + 1 == text.size() || !first(text[i]) || !second(text[i + 1])) {
      out += text[i];
      continue;
    }
    if (space_before) out += ' ';
    out += text[i];
    out += ' ';
    out += text[i + 1];
    if (space_after) out += ' ';
    ++i;
  }
  return out;
}

std::vector<std::string> tokens_13a(std::string_view raw) {
  const Text decoded = decode(raw);
  TextView view = decoded;
  while (!view.empty() && is_space(view.back())) view.remove_suffix(1);
  std::string text = encode(view);
  text = replaced(replaced(replaced(text, "<skipped>", ""), "-\n", ""), "\n", " ");
  text = replaced(replaced(text, "&quot;", "\""), "&amp;", "&");
  text = " " + replaced(replaced(text, "&lt;", "<"), "&gt;", ">") + " ";
  std::string symbols;
  for (const char c : text) {
    if (is_symbol(c)) {
      symbols += {' ', c, ' '};
    } else {
      symbols += c;
    }
  }
  const auto no_digit = [](char c) { return !is_digit(c); };
  text = apart(symbols, no_digit, is_stop, false, true);
  text = apart(text, is_stop, no_digit, true, false);
  text = apart(
      text, is_digit, [](char c) { return c == '-'; }, false, true);
  std::vector<std::string> tokens;
  const Text spaced = decode(text);
  for (const TextView token : split_space(spaced)) tokens.push_back(encode(token));
  return tokens;
}

struct BleuCounts {
  std::array<int64_t, kBleuOrder> correct{}, total{};
  int64_t length = 0, reference_length = 0;
};

void add(BleuCounts& counts, const Pair& pair) {
  const auto text = tokens_13a(pair.text), reference = tokens_13a(pair.reference);
  counts.length += std::ssize(text);
  counts.reference_length += std::ssize(reference);
  for (int n = 1; n <= kBleuOrder; ++n) {
    const auto grams = ngrams(text, n);
    counts.correct[static_cast<std::size_t>(n - 1)] += common(grams, ngrams(reference, n));
    counts.total[static_cast<std::size_t>(n - 1)] += total(grams);
  }
}

double bleu(const BleuCounts& counts, bool effective_order) {
  if (std::all_of(counts.correct.begin(), counts.correct.end(), [](int64_t c) { return c == 0; }))
    return 0;
  double smooth = 1, sum = 0;
  int order = 0;
  for (std::size_t n = 0; n < kBleuOrder; ++n) {
    if (counts.total[n] == 0) break;
    ++order;
    const auto all = static_cast<double>(counts.total[n]);
    if (counts.correct[n] == 0) smooth *= 2;
    const double share =
        counts.correct[n] == 0 ? 1 / (smooth * all) : static_cast<double>(counts.correct[n]) / all;
    sum += std::log(100 * share);
  }
  if (!effective_order && order < kBleuOrder) return 0;
  const double ratio =
      static_cast<double>(counts.reference_length) / static_cast<double>(counts.length);
  const double brevity = ratio > 1 ? std::exp(1 - ratio) : 1;
  return brevity * std::exp(sum / order);
}

std::vector<char32_t> characters(std::string_view text) {
  std::vector<char32_t> kept;
  for (const char32_t c : decode(text))
    if (!is_space(c)) kept.push_back(c);
  return kept;
}

}  // namespace

double rouge_n(std::string_view text, std::string_view reference, int n) {
  const auto a = ngrams(rouge_tokens(text), n), b = ngrams(rouge_tokens(reference), n);
  return f1(common(a, b), total(a), total(b));
}

double rouge_l(std::string_view text, std::string_view reference) {
  const auto a = rouge_tokens(text), b = rouge_tokens(reference);
  std::vector<int64_t> above(b.size() + 1), row(b.size() + 1);
  for (const auto& token : a) {
    for (std::size_t j = 0; j < b.size(); ++j)
      row[j + 1] = token == b[j] ? above[j] + 1 : std::max(above[j + 1], row[j]);
    std::swap(above, row);
  }
  return f1(above.back(), std::ssize(a), std::ssize(b));
}

double corpus_bleu(const std::vector<Pair>& pairs) {
  BleuCounts counts;
  for (const Pair& pair : pairs) add(counts, pair);
  return bleu(counts, false);
}

double sentence_bleu(std::string_view text, std::string_view reference) {
  BleuCounts counts;
  add(counts, {text, reference});
  return bleu(counts, true);
}

double chrf(std::string_view text, std::string_view reference) {
  const auto a = characters(text), b = characters(reference);
  double precision = 0, recall = 0;
  int orders = 0;
  for (int n = 1; n <= kChrfOrder; ++n) {
    const auto of_text = ngrams(a, n), of_reference = ngrams(b, n);
    const auto size = static_cast<double>(total(of_text));
    const auto reference_size = static_cast<double>(total(of_reference));
    if (size == 0 || reference_size == 0) continue;
    const auto same = static_cast<double>(common(of_text, of_reference));
    precision += same / size;
    recall += same / reference_size;
    ++orders;
  }
  if (orders == 0 || precision + recall == 0) return 0;
  precision /= orders;
  recall /= orders;
  constexpr double kBetaSquared = 4;
  return 100 * (1 + kBetaSquared) * precision * recall / (kBetaSquared * precision + recall);
}

}  // namespace crumb::eval
