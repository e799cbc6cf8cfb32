// Images to what a tower sees: against Pillow's results, and cases done by hand.
#include "engine/vision/preprocess.h"

#include <gtest/gtest.h>

#include "models/tiny_model.h"
#include "tests/engine/picture_files.h"
#include "tests/engine/resized_pixels.h"

namespace crumb::vision {
namespace {

using models::ImageFilter;
using models::ImageFit;

Image picture(int64_t width, int64_t height) {
  return {width, height,
          test::some_pixels(static_cast<uint32_t>(width), static_cast<uint32_t>(height))};
}

Window whole(int64_t width, int64_t height) { return {0, 0, width, height}; }

TEST(Resize, IsPillowsToTheBit) {
  for (const auto& row : test::kResized) {
    const Image out = resize(picture(row.from_width, row.from_height), row.width, row.height,
                             static_cast<ImageFilter>(row.filter), whole(row.width, row.height));
    EXPECT_EQ(out.width, row.width);
    EXPECT_EQ(out.height, row.height);
    EXPECT_EQ(out.rgb, row.rgb) << row.from_width << " x " << row.from_height << " to " << row.width
                                << " x " << row.height << ", filter " << row.filter;
  }
}

TEST(Resize, AWindowIsCutFromTheWhole) {
  const Image from = picture(17, 11);
  for (const auto filter : {ImageFilter::kBilinear, ImageFilter::kBicubic, ImageFilter::kLanczos})
    for (const auto& [width, height] :
         {std::pair<int64_t, int64_t>(9, 23), {17, 6}, {30, 11}, {17, 11}}) {
      const Image all = resize(from, width, height, filter, whole(width, height));
      const Image part = resize(from, width, height, filter, {2, 1, 5, 4});
      for (int64_t y = 0; y < 4; ++y)
        for (int64_t i = 0; i < 15; ++i)
          ASSERT_EQ(part.rgb[static_cast<std::size_t>(y * 15 + i)],
                    all.rgb[static_cast<std::size_t>(((1 + y) * width + 2) * 3 + i)]);
    }
}

models::VisionConfig config_of(ImageFit fit, int64_t side, int64_t edge) {
  models::VisionConfig config = models::tiny_vision();
  config.fit = fit;
  config.image = side;
  config.resize = edge;
  return config;
}

TEST(Fit, PadsTheShortSideWithBlackOnBothEnds) {
  const Image white{4, 2, std::vector<uint8_t>(24, 255)};
  const Image out = fit(white, config_of(ImageFit::kPad, 8, 8));
  ASSERT_EQ(out.rgb.size(), std::size_t{8 * 8 * 3});
  for (int64_t y = 0; y < 8; ++y)
    for (int64_t i = 0; i < 24; ++i)
      EXPECT_EQ(out.rgb[static_cast<std::size_t>(y * 24 + i)], y >= 2 && y < 6 ? 255 : 0) << y;
}

TEST(Fit, CropsTheMiddle) {
  // Three stripes; the shortest side is the edge already.
  Image stripes{12, 4, {}};
  for (int64_t y = 0; y < 4; ++y)
    for (int64_t x = 0; x < 12; ++x)
      stripes.rgb.insert(stripes.rgb.end(), 3, static_cast<uint8_t>(x / 4 * 100));
  const Image out = fit(stripes, config_of(ImageFit::kCrop, 4, 4));
  EXPECT_EQ(out.rgb, std::vector<uint8_t>(48, 100));
}

TEST(Fit, StretchesBothSides) {
  const Image flat{7, 3, std::vector<uint8_t>(63, 77)};
  const Image out = fit(flat, config_of(ImageFit::kStretch, 6, 6));
  EXPECT_EQ(out.rgb, std::vector<uint8_t>(108, 77));
}

// A line of pixels is no excuse to make a plane of them.
TEST(Fit, ThinImagesStaySmall) {
  for (const auto& [width, height] : {std::pair<int64_t, int64_t>(16000, 1), {1, 16000}}) {
    const Image thin{width, height,
                     std::vector<uint8_t>(static_cast<std::size_t>(width * height * 3), 9)};
    EXPECT_EQ(fit(thin, config_of(ImageFit::kCrop, 8, 16)).rgb, std::vector<uint8_t>(192, 9));
    const Image padded = fit(thin, config_of(ImageFit::kPad, 8, 8));
    EXPECT_EQ(std::count(padded.rgb.begin(), padded.rgb.end(), 9), 24);
  }
}

TEST(Normalise, IsByColour) {
  models::VisionConfig config = config_of(ImageFit::kPad, 1, 1);
  config.mean = {0.5f, 0.25f, 0};
  config.std = {0.5f, 0.5f, 2};
  const auto out = normalise({1, 1, {255, 0, 51}}, config);
  ASSERT_EQ(out.size(), std::size_t{3});
  EXPECT_FLOAT_EQ(out[0], 1.0f);
  EXPECT_FLOAT_EQ(out[1], -0.5f);
  EXPECT_FLOAT_EQ(out[2], 0.1f);
}

}  // namespace
}  // namespace crumb::vision
