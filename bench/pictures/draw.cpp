#include "bench/pictures/draw.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "bench/pictures/font.h"
#include "models/errors.h"
#include "models/file_writer.h"

namespace crumb::pictures {
namespace {

constexpr int64_t kPoints = 4;                 // of a pixel, in each direction
constexpr double kTenth = 0.6283185307179586;  // of a full turn

// Distance of the border of a five-pointed star from its centre in direction `angle` (0 is up).
double star_radius(double angle) {
  constexpr double kInner = 0.45;
  // Within a tenth of a turn from the nearest point the border is the line from point to notch.
  double a = std::fmod(std::abs(angle), 2 * kTenth);
  if (a > kTenth) a = 2 * kTenth - a;
  const double x = kInner * std::sin(kTenth), y = kInner * std::cos(kTenth);  // the notch
  return x / (std::sin(a) * (1 - y) + std::cos(a) * x);
}

bool in_shape(Shape shape, double x, double y) {  // of radius 1, y down
  const double r = std::hypot(x, y);
  switch (shape) {
    case Shape::kCircle:
      return r <= 0.95;
    case Shape::kRing:
      return r <= 1 && r >= 0.6;
    case Shape::kSquare:
      return std::max(std::abs(x), std::abs(y)) <= 0.8;
    case Shape::kTriangle:
      return y <= 0.75 && std::abs(x) <= 0.55 * (y + 0.95);
    case Shape::kCross:
      return std::min(std::abs(x), std::abs(y)) <= 0.27 &&
             std::max(std::abs(x), std::abs(y)) <= 0.95;
    case Shape::kStar:
      return r <= star_radius(std::atan2(x, -y));
  }
  return false;
}

// u, v: place in the picture, 0..1. A text's letters stand in cells of six by eight dots.
bool in_text(const Thing& thing, double u, double v) {
  const auto letters = static_cast<double>(thing.text.size());
  const double height = thing.size / 3, dot = height / 8;
  const double left = (static_cast<double>(thing.place % 3) + 0.5) / 3 - 3 * dot * letters;
  const double top = (static_cast<double>(thing.place / 3) + 0.5) / 3 - 4 * dot;
  const int column = static_cast<int>(std::floor((u - left) / dot));
  const int row = static_cast<int>(std::floor((v - top) / dot));
  if (column < 0 || column >= 6 * static_cast<int>(thing.text.size())) return false;
  return glyph_dot(thing.text[static_cast<std::size_t>(column / 6)], column % 6, row);
}

bool covers(const Thing& thing, double u, double v) {
  if (!thing.text.empty()) return in_text(thing, u, v);
  const double radius = thing.size / 6;
  const double x = (u - (static_cast<double>(thing.place % 3) + 0.5) / 3) / radius;
  const double y = (v - (static_cast<double>(thing.place / 3) + 0.5) / 3) / radius;
  const double c = std::cos(thing.turn), s = std::sin(thing.turn);
  return in_shape(thing.shape, c * x + s * y, c * y - s * x);
}

Rgb colour_at(const Scene& scene, double u, double v) {
  for (const Thing& thing : scene.things)
    if (covers(thing, u, v)) return kColours[thing.colour].value;
  return kGrounds[scene.ground];
}

}  // namespace

Pixels draw(const Scene& scene, int64_t side) {
  Pixels pixels{side, {}};
  const double step = 1.0 / static_cast<double>(side * kPoints);
  for (int64_t y = 0; y < side; ++y)
    for (int64_t x = 0; x < side; ++x) {
      int64_t sum[3] = {};
      for (int64_t i = 0; i < kPoints * kPoints; ++i) {
        const Rgb at =
            colour_at(scene, (static_cast<double>(x * kPoints + i % kPoints) + 0.5) * step,
                      (static_cast<double>(y * kPoints + i / kPoints) + 0.5) * step);
        sum[0] += at.r;
        sum[1] += at.g;
        sum[2] += at.b;
      }
      for (const int64_t channel : sum)
        pixels.rgb.push_back(
            static_cast<uint8_t>((channel + kPoints * kPoints / 2) / (kPoints * kPoints)));
    }
  return pixels;
}

void write_png(const std::string& path, const Pixels& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = image.height = static_cast<png_uint_32>(pixels.side);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string bytes(size, '\0');
  if (png_image_write_to_memory(&image, bytes.data(), &size, 0, pixels.rgb.data(), 0, nullptr) == 0)
    throw IoError("cannot write (" + path + ": " + image.message + ")");
  bytes.resize(size);
  models::write_file(path, bytes);
}

}  // namespace crumb::pictures
