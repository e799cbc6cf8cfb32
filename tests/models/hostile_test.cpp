// Damaged files of both formats: a FormatError, or (for harmless flips) the same model; bounded
// memory.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/errors.h"
#include "models/export.h"
#include "models/gguf.h"
#include "models/safetensors.h"
#include "tests/models/support.h"

namespace crumb::models {
namespace {

constexpr int64_t kAllowedExtra = 64 << 20;

struct Damaged {
  std::vector<uint8_t> bytes;  // of the intact file
  std::size_t header = 0;      // where tensor data begins
};

// What happened when a file was opened.
enum class Outcome { kOpened, kRefused };

class Hostile : public testing::Test {
 protected:
  Outcome open(std::span<const uint8_t> bytes) {
    test::write_bytes(path_, bytes);
    test::reset_peak();
    Outcome outcome = Outcome::kOpened;
    try {
      open_source(path_);
    } catch (const FormatError& error) {
      outcome = Outcome::kRefused;
      EXPECT_NE(std::string(error.what()).find("found"), std::string::npos) << error.what();
    }
    most_ = std::max(most_, test::peak_bytes());
    return outcome;
  }

  void truncate_everywhere(const Damaged& file) {
    ASSERT_EQ(open(file.bytes), Outcome::kOpened);
    const int64_t control = most_;
    for (std::size_t size = 0; size < file.bytes.size(); size += size < file.header ? 1 : 64)
      ASSERT_EQ(open(std::span(file.bytes).first(size)), Outcome::kRefused)
          << "cut to " << size << " bytes";
    EXPECT_LE(most_, control + kAllowedExtra);
  }

  // `may_open`: a flip may give another lawful file (GGUF has no checksum of its header).
  void flip_everywhere(const Damaged& file, bool may_open) {
    ASSERT_EQ(open(file.bytes), Outcome::kOpened);
    const int64_t control = most_;
    auto bytes = file.bytes;
    for (std::size_t i = 0; i < file.header; ++i) {
      const uint8_t original = bytes[i];
      for (const int value : {original ^ 1, 0xff, static_cast<int>('"')}) {
        bytes[i] = static_cast<uint8_t>(value);
        if (bytes[i] == original) continue;
        const Outcome outcome = open(bytes);
        ASSERT_TRUE(may_open || outcome == Outcome::kRefused) << "byte " << i << " = " << value;
      }
      bytes[i] = original;
    }
    EXPECT_LE(most_, control + kAllowedExtra);
  }

  Damaged tiny_gguf() {
    write_gguf(tiny_model(small()), path_);
    Damaged file{test::read_bytes(path_), 0};
    const GgufFile gguf(file.bytes, path_);
    file.header = static_cast<std::size_t>(gguf.tensors().front().data.data() - file.bytes.data());
    return file;
  }
  Damaged tiny_crumb(bool sees = false) {
    TinyOptions options = small();
    if (sees) {
      options.vision = tiny_vision("dinov2");
      options.vision->layers = 1;
      options.vision->dim = options.vision->hidden = 32;
      options.vision->ffn = 64;
    }
    const SourceModel model = tiny_model(options);
    test::write_crumb(path_, model, test::banded_plans(model.config));
    Damaged file{test::read_bytes(path_), 0};
    file.header = 8 + parse_safetensors(file.bytes, path_).header.size();
    return file;
  }

 private:
  static TinyOptions small() {
    TinyOptions options;
    options.layers = 1;
    options.dim = 32;
    options.ffn = 64;  // two strips: bands
    options.head_dim = 8;
    options.vocab = 262;
    return options;
  }

  test::TempDir dir_;
  std::string path_ = dir_.file("hostile");
  int64_t most_ = 0;
};

TEST_F(Hostile, TruncatedGguf) { truncate_everywhere(tiny_gguf()); }
TEST_F(Hostile, TruncatedCrumb) { truncate_everywhere(tiny_crumb()); }
TEST_F(Hostile, TruncatedSeeingCrumb) { truncate_everywhere(tiny_crumb(true)); }
TEST_F(Hostile, FlippedSeeingCrumb) { flip_everywhere(tiny_crumb(true), false); }
TEST_F(Hostile, FlippedGguf) { flip_everywhere(tiny_gguf(), true); }
TEST_F(Hostile, FlippedCrumb) { flip_everywhere(tiny_crumb(), false); }

std::vector<uint8_t> safetensors(const std::string& header, std::size_t data = 0) {
  std::vector<uint8_t> bytes;
  for (int shift = 0; shift < 64; shift += 8)
    bytes.push_back(static_cast<uint8_t>(header.size() >> shift));
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.resize(bytes.size() + data);
  return bytes;
}

std::string nested(std::size_t depth) {
  std::string text = R"({"a":)";
  for (std::size_t i = 0; i < depth; ++i) text += "[";
  return text;
}

TEST(SafetensorsHeader, RefusesWhatTheFormatForbids) {
  const std::string good = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  EXPECT_EQ(parse_safetensors(safetensors(good, 4), "x").tensors.size(), 1u);
  EXPECT_EQ(parse_safetensors(safetensors(good + "   ", 4), "x").tensors.size(), 1u);
  const std::string bad[] = {
      "",
      " " + good,
      "[]",
      "{",
      good + "x",
      good + good,
      nested(1'000'000),
      R"({"a":1})",
      R"({"a":{}})",
      R"({"a":null})",
      R"({"__metadata__":{"k":1}})",
      R"({"__metadata__":{"k":{}}})",
      R"({"__metadata__":{"k":"1","k":"2"},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
      R"({"a":{"dtype":"U9","shape":[4],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"more":1}})",
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})",
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]}})",
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,4]}})",
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})",
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})",
      R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}})",
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
      R"({"a":{"dtype":["U8"],"shape":[4],"data_offsets":[0,4]}})",
      R"({"":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
  };
  for (const std::string& header : bad)
    EXPECT_THROW(parse_safetensors(safetensors(header, 4), "x"), FormatError)
        << header.substr(0, 100);
  auto long_header = safetensors(good, 4);
  for (std::size_t i = 0; i < 8; ++i) {
    auto bytes = long_header;
    bytes[i] = 0xff;
    EXPECT_THROW(parse_safetensors(bytes, "x"), FormatError);
  }
}

}  // namespace
}  // namespace crumb::models
