// Prose is wrapped between words, code is not; however the text is cut into pieces.
#include "apps/answer_printer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "tokenizer/utf8.h"

namespace crumb::apps {
namespace {

// What is drawn when the text comes `cut` characters at a time; styles as <code> and </code>.
std::string drawn(const std::string& text, int columns, std::size_t cut) {
  std::string out;
  AnswerPrinter printer(columns, {[&](std::string_view s) { out += s; },
                                  [&](std::string_view s) { out += s; }, "<code>", "</code>"});
  std::string piece;
  std::size_t characters = 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto length = static_cast<std::size_t>(tokenizer::code_point_at(text, i).length);
    piece += text.substr(i, length);
    i += length;
    if (++characters % cut == 0) printer.push(std::exchange(piece, {}));
  }
  printer.push(piece);
  printer.finish();
  return out;
}

void expect_drawn(const std::string& text, int columns, const std::string& want) {
  for (const std::size_t cut : {1, 2, 3, 7, 1000})
    EXPECT_EQ(drawn(text, columns, cut), want) << "cut " << cut;
}

TEST(AnswerPrinter, WrapsBetweenWords) {
  expect_drawn("one two three four", 9, "one two \nthree \nfour");
  expect_drawn("exactly nine, ten", 13, "exactly nine,\nten");
  expect_drawn("a\nb  c\n\n- d e", 20, "a\nb  c\n\n- d e");
}

TEST(AnswerPrinter, AWordLongerThanALineIsWhole) {
  expect_drawn("see https://example.org/a/long/path for it", 12,
               "see \nhttps://example.org/a/long/path for \nit");
}

TEST(AnswerPrinter, WideCharactersTakeTwoColumns) {
  EXPECT_EQ(columns_of('a'), 1);
  EXPECT_EQ(columns_of(0x4e2d), 2);
  EXPECT_EQ(columns_of(0x1f600), 2);
  EXPECT_EQ(columns_of(0x301), 0);
  expect_drawn("中文中文中文", 7, "中文中\n文中文");
}

TEST(AnswerPrinter, CodeIsNotWrapped) {
  const std::string code = "    for (int i = 0; i < 10; ++i)  sum += i;\n";
  expect_drawn("so it is:\n```cpp\n" + code + "```\nand then more words", 12,
               "so it is:\n```cpp\n<code>" + code + "```</code>\nand then \nmore words");
  // A fence that stands in a line is none; an open one ends with the answer.
  expect_drawn("use ``` so", 80, "use ``` so");
  expect_drawn("```\nx", 80, "```\n<code>x</code>");
}

TEST(AnswerPrinter, WithoutColumnsNothingIsAdded) {
  const std::string text =
      "a long line of words that could be wrapped somewhere, but is not\n\tx  y \n";
  for (const std::size_t cut : {1, 5, 1000}) EXPECT_EQ(drawn(text, 0, cut), text);
}

TEST(AnswerPrinter, NoLineIsLongerThanItMayBe) {
  std::string text;
  uint32_t random = 1;
  for (int i = 0; i < 5000; ++i) {
    random = random * 1664525 + 1013904223;
    text += (random >> 16) % 6 == 0 ? ' ' : static_cast<char>('a' + (random >> 20) % 26);
  }
  const std::string out = drawn(text, 40, 3);
  std::string joined = out;
  joined.erase(std::remove(joined.begin(), joined.end(), '\n'), joined.end());
  joined.erase(std::remove(joined.begin(), joined.end(), ' '), joined.end());
  text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
  EXPECT_EQ(joined, text);
  for (std::size_t begin = 0; begin < out.size();) {
    const std::size_t end = std::min(out.find('\n', begin), out.size());
    const std::string line = out.substr(begin, end - begin);
    if (line.find(' ') != std::string::npos) {
      EXPECT_LE(line.size(), 40u) << line;
    }
    begin = end + 1;
  }
}

}  // namespace
}  // namespace crumb::apps
