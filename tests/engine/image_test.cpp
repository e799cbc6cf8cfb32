// Pictures in memory to pixels: every kind of file, every cut, and files that lie.
#include "engine/vision/image.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/errors.h"
#include "tests/engine/picture_files.h"

namespace crumb::vision {
namespace {

using test::Bytes;

std::string refusal(const Bytes& bytes, const ImageLimits& limits = {},
                    ExitCode code = ExitCode::kBadFile) {
  try {
    decode_image(bytes, "picture", limits);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find("picture"), std::string::npos) << error.what();
    return error.what();
  }
}

TEST(ImagePng, ColoursAsTheyAre) {
  const Bytes rgb = test::some_pixels(5, 3);
  const Image image = decode_image(test::make_rgb_png(5, 3, rgb), "picture");
  EXPECT_EQ(image.width, 5);
  EXPECT_EQ(image.height, 3);
  EXPECT_EQ(image.rgb, rgb);
}

TEST(ImagePng, EveryKindBecomesRgb) {
  const struct {
    const char* name;
    Bytes file, want;
  } cases[] = {
      {"grey of one bit", test::make_png(2, 1, 1, 0, {0, 0x40}), {0, 0, 0, 255, 255, 255}},
      {"grey of 8", test::make_png(2, 1, 8, 0, {0, 7, 200}), {7, 7, 7, 200, 200, 200}},
      {"grey of 16", test::make_png(1, 1, 16, 0, {0, 0x80, 0x7f}), {128, 128, 128}},
      {"palette",
       test::make_png(2, 1, 4, 3, {0, 0x10}, {{"PLTE", {1, 2, 3, 4, 5, 6}}}),
       {4, 5, 6, 1, 2, 3}},
      {"palette with a clear colour",
       test::make_png(2, 1, 4, 3, {0, 0x10}, {{"PLTE", {1, 2, 3, 4, 5, 6}}, {"tRNS", {0}}}),
       {4, 5, 6, 255, 255, 255}},
      {"colour taken as clear",
       test::make_png(2, 1, 8, 2, {0, 9, 8, 7, 1, 1, 1}, {{"tRNS", {0, 9, 0, 8, 0, 7}}}),
       {255, 255, 255, 1, 1, 1}},
      {"grey and alpha",
       test::make_png(2, 1, 8, 4, {0, 100, 255, 100, 0}),
       {100, 100, 100, 255, 255, 255}},
      {"RGBA, half of it", test::make_png(1, 1, 8, 6, {0, 0, 100, 255, 128}), {127, 177, 255}},
      {"RGBA of 16 bits",
       test::make_png(1, 1, 16, 6, {0, 0, 0, 0xff, 0xff, 0x12, 0x34, 0xff, 0xff}),
       {0, 255, 18}},
      {"interlaced", test::make_png(1, 1, 8, 2, {0, 3, 2, 1}, {}, 1), {3, 2, 1}},
      {"a text that nobody reads",
       test::make_png(1, 1, 8, 2, {0, 3, 2, 1},
                      {{"tEXt", {'a', 0, 'b'}}, {"zTXt", {'a', 0, 0, 9}}}),
       {3, 2, 1}},
  };
  for (const auto& one : cases)
    EXPECT_EQ(decode_image(one.file, "picture").rgb, one.want) << one.name;
}

TEST(ImageJpeg, CloseToWhatWasWritten) {
  const Bytes rgb(16 * 8 * 3, 120);
  for (const bool progressive : {false, true}) {
    const auto file = test::make_jpeg(16, 8, rgb, {3, progressive});
    const Image image = decode_image(file, "picture");
    ASSERT_EQ(image.rgb.size(), rgb.size());
    EXPECT_EQ(image.width, 16);
    for (const uint8_t value : image.rgb) EXPECT_NEAR(value, 120, 1);
  }
  const Image grey = decode_image(test::make_jpeg(9, 7, Bytes(63, 30), {1}), "picture");
  ASSERT_EQ(grey.rgb.size(), std::size_t{9 * 7 * 3});
  for (const uint8_t value : grey.rgb) EXPECT_NEAR(value, 30, 1);
}

TEST(ImageJpeg, ColoursKeepTheirOrder) {
  Bytes rgb;
  for (int i = 0; i < 256; ++i) rgb.insert(rgb.end(), {250, 120, 10});
  const Image image = decode_image(test::make_jpeg(16, 16, rgb), "picture");
  EXPECT_NEAR(image.rgb[0], 250, 3);
  EXPECT_NEAR(image.rgb[1], 120, 3);
  EXPECT_NEAR(image.rgb[2], 10, 3);
}

TEST(ImageJpeg, CmykIsRefusedByName) {
  const std::string what = refusal(test::make_jpeg(8, 8, Bytes(8 * 8 * 4, 9), {4}));
  EXPECT_NE(what.find("CMYK"), std::string::npos) << what;
}

std::vector<Bytes> whole_files() {
  const Bytes rgb = test::some_pixels(13, 9);
  return {test::make_rgb_png(13, 9, rgb),
          test::make_png(2, 1, 4, 3, {0, 0x10}, {{"PLTE", {1, 2, 3, 4, 5, 6}}}),
          test::make_jpeg(13, 9, rgb), test::make_jpeg(13, 9, rgb, {3, true}),
          test::make_jpeg(9, 7, Bytes(63, 30), {1})};
}

TEST(Image, EveryCutIsRefused) {
  for (const Bytes& file : whole_files()) {
    ASSERT_EQ(refusal(file), "");
    for (std::size_t size = 0; size < file.size(); ++size) {
      const Bytes cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
      ASSERT_NE(refusal(cut), "") << size << " of " << file.size() << " bytes";
    }
  }
}

// A changed byte gives another image or a refusal, nothing else; the sizes stay what was allowed.
TEST(Image, EveryChangedByteIsSurvived) {
  ImageLimits limits;
  limits.pixels = 1 << 16;
  for (Bytes file : whole_files())
    for (std::size_t i = 0; i < file.size(); ++i)
      for (const int value : {file[i] ^ 1, 0, 0xff, file[i] ^ 0x80}) {
        const uint8_t before = file[i];
        file[i] = static_cast<uint8_t>(value);
        try {
          const Image image = decode_image(file, "picture", limits);
          EXPECT_EQ(std::ssize(image.rgb), image.width * image.height * 3);
          EXPECT_LE(image.width * image.height, limits.pixels);
        } catch (const Error& error) {
          EXPECT_TRUE(error.code() == ExitCode::kBadFile || error.code() == ExitCode::kMemory)
              << error.what();
        }
        file[i] = before;
      }
}

// Headers of images that would fill the memory.
TEST(Image, BombsAreRefusedByTheirHeader) {
  const Bytes small = {0, 1, 2, 3};
  const auto png = [&](uint32_t width, uint32_t height) {
    return test::make_png(width, height, 8, 2, small);
  };
  for (const auto& file : {png(65535, 65535), png(0x7fffffff, 0x7fffffff), png(1, 20000),
                           png(20000, 1), png(4097, 4097)}) {
    const std::string what = refusal(file, {}, ExitCode::kMemory);
    EXPECT_NE(what.find("too large"), std::string::npos) << what;
  }
  // Within the limits, but not in so few bytes.
  EXPECT_NE(refusal(png(4096, 4096)).find("bytes for 4096 x 4096"), std::string::npos);
  EXPECT_NE(refusal(png(0, 5)), "");
  EXPECT_NE(refusal(png(0xffffffff, 1), {}, ExitCode::kMemory), "");
  Bytes jpeg = test::make_jpeg(16, 16, Bytes(16 * 16 * 3, 1));
  for (std::size_t i = 0; i + 8 < jpeg.size(); ++i)
    if (jpeg[i] == 0xff && jpeg[i + 1] == 0xc0) {
      jpeg[i + 5] = 0x10;  // 4096 x 4096
      jpeg[i + 6] = 0x00;
      jpeg[i + 7] = 0x10;
      jpeg[i + 8] = 0x00;
      break;
    }
  EXPECT_NE(refusal(jpeg).find("bytes for 4096 x 4096"), std::string::npos);
}

TEST(Image, LimitsAreTheCallers) {
  const Bytes file = test::make_rgb_png(5, 3, test::some_pixels(5, 3));
  ImageLimits bytes, side, pixels;
  bytes.bytes = 20;
  side.side = 4;
  pixels.pixels = 14;
  for (const auto& limits : {bytes, side, pixels})
    EXPECT_NE(refusal(file, limits, ExitCode::kMemory).find("too large"), std::string::npos);
}

TEST(Image, OtherFilesAreNamed) {
  EXPECT_NE(refusal({}).find("no bytes"), std::string::npos);
  EXPECT_NE(refusal({'G', 'I', 'F', '8', '9', 'a'}).find("another kind"), std::string::npos);
}

}  // namespace
}  // namespace crumb::vision
