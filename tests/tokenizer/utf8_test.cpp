#include "tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace crumb::tokenizer {
namespace {

std::string written(uint32_t value) {
  std::string out;
  append_utf8(out, value);
  return out;
}

// Is there a well-formed sequence that starts with `bytes`? By trying the continuations.
bool starts_sequence(const std::string& bytes) {
  for (uint32_t value = 0; value < 0x110000; value = value < 0x80 ? value + 1 : value + 64) {
    // 64 neighbours share all but the last byte; a prefix shorter than the sequence is common to
    // all of them.
    const std::string text = written(value);
    if (value >= 0xD800 && value < 0xE000) continue;
    if (text.size() > bytes.size() && text.starts_with(bytes)) return true;
  }
  return false;
}

TEST(Utf8, WritesAndReadsEveryScalarValue) {
  for (uint32_t value = 0; value < 0x110000; ++value) {
    if (value >= 0xD800 && value < 0xE000) continue;
    const std::string text = written(value);
    const CodePoint found = code_point_at("x" + text + "x", 1);
    ASSERT_EQ(found.value, value);
    ASSERT_EQ(found.length, static_cast<int>(text.size()));
    ASSERT_EQ(text.size(), value < 0x80 ? 1u : value < 0x800 ? 2u : value < 0x10000 ? 3u : 4u);
  }
  EXPECT_EQ(written(0x20AC), "\xE2\x82\xAC");
  EXPECT_EQ(written(0x1F600), "\xF0\x9F\x98\x80");
}

TEST(Utf8, WritesAReplacementForWhatIsNoScalarValue) {
  for (const uint32_t value : {0xD800u, 0xDFFFu, 0x110000u, kNoCodePoint}) {
    EXPECT_EQ(written(value), "\uFFFD");
  }
}

TEST(Utf8, IllFormedBytesAreOneByteEach) {
  for (const char* bytes :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xC3x", "\xE0\x80\x80", "\xE0\x9F\xBF",
        "\xE2\x82", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF"}) {
    const CodePoint found = code_point_at(bytes, 0);
    EXPECT_EQ(found.value, kNoCodePoint) << bytes;
    EXPECT_EQ(found.length, 1) << bytes;
  }
}

TEST(Utf8, EveryPairOfBytesAgreesWithTheTable) {
  for (int first = 0x80; first < 0x100; ++first) {
    for (int second = 0; second < 0x100; ++second) {
      const std::string bytes = {static_cast<char>(first), static_cast<char>(second)};
      const bool valid = first >= 0xC2 && first <= 0xDF && second >= 0x80 && second <= 0xBF;
      EXPECT_EQ(code_point_at(bytes, 0).length == 2, valid) << first << " " << second;
    }
  }
}

TEST(Utf8Stream, ReplacesMaximalSubparts) {
  const std::pair<std::string, std::string> cases[] = {
      // The examples of the Unicode standard, tables 3-8, 3-9, 3-10 and 3-11, shortened.
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"ok\xF0\x9F\x98", "ok\uFFFD"},
      {"", ""},
  };
  for (const auto& [bytes, expected] : cases) EXPECT_EQ(replace_invalid_utf8(bytes), expected);
}

TEST(Utf8Stream, HoldsBackHalfCharactersOnly) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80z"), "\U0001F600z");
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.push("b"),
            "\uFFFD"
            "b");
  EXPECT_EQ(stream.push("\xC3"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push("\xA9"), "\uFFFD");
}

// The slow twin of the stream: the longest start of a sequence by search, else one byte.
std::string replace_slowly(const std::string& bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size();) {
    const CodePoint found = code_point_at(bytes, i);
    if (found.value != kNoCodePoint) {
      out += written(found.value);
      i += static_cast<std::size_t>(found.length);
      continue;
    }
    std::size_t length = 1;
    while (i + length < bytes.size() && starts_sequence(bytes.substr(i, length + 1))) ++length;
    out += "\uFFFD";
    i += length;
  }
  return out;
}

TEST(Utf8Stream, EqualsTheSlowTwinOnRandomBytes) {
  const std::string lead = "a\x80\x8F\x90\x9F\xA0\xBF\xC1\xC2\xE0\xE1\xED\xEF\xF0\xF1\xF4\xF5";
  std::mt19937 random(5);
  for (int i = 0; i < 150; ++i) {
    std::string bytes(random() % 12, ' ');
    for (char& byte : bytes) byte = lead[random() % lead.size()];
    ASSERT_EQ(replace_invalid_utf8(bytes), replace_slowly(bytes));
  }
}

TEST(Utf8Stream, AnyChunksGiveWholeCharactersThatJoinToTheOneShotResult) {
  std::mt19937 random(6);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (std::size_t i = random() % 30; i > 0; --i) {
      if (random() % 2) {
        bytes += static_cast<char>(random() % 256);
      } else {
        append_utf8(bytes, random() % (random() % 2 ? 0x3000 : 0x110000));
      }
    }
    Utf8Stream stream;
    std::string joined;
    for (std::size_t i = 0; i < bytes.size();) {
      const std::size_t length = std::min<std::size_t>(random() % 4, bytes.size() - i);
      const std::string out = stream.push(std::string_view(bytes).substr(i, length));
      for (std::size_t k = 0; k < out.size();) {
        const CodePoint found = code_point_at(out, k);
        ASSERT_NE(found.value, kNoCodePoint);
        k += static_cast<std::size_t>(found.length);
      }
      joined += out;
      i += length;
    }
    ASSERT_EQ(joined + stream.finish(), replace_invalid_utf8(bytes));
  }
}

}  // namespace
}  // namespace crumb::tokenizer
