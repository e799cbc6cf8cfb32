#include "tokenizer/nfc.h"

#include <gtest/gtest.h>

#include <ctime>

#include "tokenizer/nfc_tables.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer {
namespace {

std::string text_of(std::initializer_list<uint32_t> points) {
  std::string out;
  for (const uint32_t point : points) append_utf8(out, point);
  return out;
}

TEST(Nfc, ComposesAndOrders) {
  EXPECT_EQ(to_nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(to_nfc("\u212B"), "\u00C5");               // singleton: Angstrom sign
  EXPECT_EQ(to_nfc("a\u0301\u0323"), "\u1EA1\u0301");  // dot below goes first
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093C");         // excluded from composition
  EXPECT_EQ(to_nfc("a\u0300\u0300"), "\u00E0\u0300");
  EXPECT_EQ(to_nfc("\u0301e"), "\u0301e");  // nothing before it to join
  EXPECT_EQ(to_nfc("\u1E9B\u0323"), "\u1E9B\u0323");
  EXPECT_EQ(to_nfc("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(to_nfc("\uAC00\u11A8"), "\uAC01");
  EXPECT_EQ(to_nfc("\uAC01\u11A8"), "\uAC01\u11A8");
}

TEST(Nfc, LeavesOtherBytesAlone) {
  EXPECT_EQ(to_nfc("a\xCC"), "a\xCC");
  EXPECT_EQ(to_nfc("e\xFF\u0301"), "e\xFF\u0301");
  EXPECT_EQ(to_nfc(""), "");
}

TEST(Nfc, MayChangeSaysYesToWhateverChanges) {
  for (uint32_t point = 1; point < 0x110000; ++point) {
    const std::string text = text_of({point});
    const std::string normal = to_nfc(text);
    if (normal != text) {
      ASSERT_TRUE(may_change_in_nfc(text)) << point;
    }
    ASSERT_EQ(to_nfc(normal), normal) << point;
  }
}

TEST(Nfc, TablesAreSorted) {
  for (std::size_t i = 1; i < combining_ranges().size(); ++i)
    EXPECT_LT(combining_ranges()[i - 1].last, combining_ranges()[i].first);
  for (std::size_t i = 1; i < decompositions().size(); ++i)
    EXPECT_LT(decompositions()[i - 1].whole, decompositions()[i].whole);
  for (std::size_t i = 1; i < compositions().size(); ++i)
    EXPECT_LT(std::pair(compositions()[i - 1].first, compositions()[i - 1].second),
              std::pair(compositions()[i].first, compositions()[i].second));
}

TEST(Nfc, AMebibyteOfMarksIsQuick) {
  std::string text = "a";
  while (text.size() < (1 << 20)) text += "\u0301\u0323";
  const std::clock_t start = std::clock();
  EXPECT_EQ(to_nfc(text).substr(0, 3), "\u1EA1");
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 1.0);
}

}  // namespace
}  // namespace crumb::tokenizer
