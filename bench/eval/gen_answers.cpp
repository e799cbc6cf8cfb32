#include "bench/eval/gen_answers.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace crumb::eval {
namespace {

constexpr std::string_view kDigits = "0123456789";

std::size_t run_of(std::string_view text, std::size_t i, std::string_view set) {
  return std::min(text.find_first_not_of(set, i), text.size()) - i;
}

// The match of the flexible pattern at i, 0 characters if there is none.
std::size_t number_at(std::string_view text, std::size_t i) {
  const std::size_t sign = text[i] == '-' ? 1 : 0;
  const std::size_t loose = run_of(text, std::min(i + sign, text.size()), "$0123456789.,");
  if (loose >= 2) return sign + loose;
  const std::size_t digits = run_of(text, std::min(i + sign, text.size()), kDigits);
  return digits > 0 ? sign + digits : 0;
}

bool value_of(std::string_view text, double& value) {
  const std::string plain = plain_number(text);
  if (plain.empty()) return false;
  char* end = nullptr;
  value = std::strtod(plain.c_str(), &end);
  return end == plain.c_str() + plain.size() && std::isfinite(value);
}

std::string joined(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const auto part : parts) text += part;
  return text;
}

}  // namespace

std::string strict_number(std::string_view answer) {
  constexpr std::string_view kMark = "#### ";
  for (std::size_t at = answer.find(kMark); at != std::string_view::npos;
       at = answer.find(kMark, at + 1)) {
    const std::size_t begin = at + kMark.size();
    const std::size_t sign = begin < answer.size() && answer[begin] == '-' ? 1 : 0;
    const std::size_t length = run_of(answer, begin + sign, "0123456789.,");
    if (length > 0) return std::string(answer.substr(begin, sign + length));
  }
  return {};
}

std::string flexible_number(std::string_view answer) {
  std::string last;
  for (std::size_t i = 0; i < answer.size();) {
    const std::size_t length = number_at(answer, i);
    if (length > 0) last = answer.substr(i, length);
    i += std::max<std::size_t>(length, 1);
  }
  return last;
}

std::string plain_number(std::string_view number) {
  std::string plain(number);
  std::erase_if(plain, [](char c) { return c == ',' || c == '$'; });
  if (plain.ends_with('.')) plain.pop_back();
  return plain;
}

bool same_number_text(std::string_view a, std::string_view b) {
  return !a.empty() && plain_number(a) == plain_number(b);
}

bool same_number_value(std::string_view a, std::string_view b) {
  double x = 0, y = 0;
  return value_of(a, x) && value_of(b, y) && std::abs(x - y) <= 1e-9 * std::max(1.0, std::abs(y));
}

std::string puzzle_answer(std::string_view answer) {
  constexpr std::string_view kMark = "the answer is ";
  for (std::size_t at = answer.find(kMark); at != std::string_view::npos;
       at = answer.find(kMark, at + 1)) {
    const std::size_t begin = at + kMark.size();
    const std::size_t end = std::min(answer.find('\n', begin), answer.size());
    if (end > begin) return std::string(answer.substr(begin, end - begin - 1));
  }
  return {};
}

std::string mbpp_program(std::string_view answer, std::string_view setup,
                         const std::vector<std::string>& tests) {
  std::string program = joined({answer, "\n", setup, "\n"});
  for (const auto& test : tests) program += test + "\n";
  return program;
}

std::string humaneval_program(std::string_view prompt, std::string_view completion,
                              std::string_view test, std::string_view entry_point) {
  return joined({prompt, completion, "\n", test, "\ncheck(", entry_point, ")\n"});
}

}  // namespace crumb::eval
