#include "engine/vision/preprocess.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace crumb::vision {
namespace {

using models::ImageFilter;
using models::ImageFit;

constexpr std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

double sinc(double x) {
  x *= std::numbers::pi;
  return x == 0 ? 1.0 : std::sin(x) / x;
}
double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

// In the order of ImageFilter.
struct Filter {
  double (*weight)(double);
  double support;
};
constexpr Filter kFilters[] = {{triangle, 1}, {cubic, 2}, {lanczos, 3}};

// What pixels of one axis are made of: `count` sources from `first`, weights in 2^-22.
constexpr int kBits = 22;
struct Taps {
  int64_t first = 0;
  std::vector<int32_t> weights;
};

std::vector<Taps> make_taps(int64_t in, int64_t out, const Filter& filter, int64_t begin,
                            int64_t count) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double widened = std::max(scale, 1.0), support = filter.support * widened;
  std::vector<Taps> all(size_of(count));
  std::vector<double> weights;
  for (int64_t i = 0; i < count; ++i) {
    const double centre = (static_cast<double>(begin + i) + 0.5) * scale;
    const auto first = std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
    const auto last = std::min<int64_t>(static_cast<int64_t>(centre + support + 0.5), in);
    weights.clear();
    double sum = 0;
    for (int64_t x = first; x < last; ++x) {
      weights.push_back(filter.weight((static_cast<double>(x) - centre + 0.5) * (1.0 / widened)));
      sum += weights.back();
    }
    Taps& taps = all[size_of(i)];
    taps.first = first;
    for (const double weight : weights) {
      const double scaled = (sum != 0 ? weight / sum : weight) * (1 << kBits);
      taps.weights.push_back(static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
  }
  return all;
}

uint8_t rounded(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

// One pixel of three colours from sources `step` bytes apart.
void blend(const Taps& taps, const uint8_t* from, int64_t step, uint8_t* out) {
  int32_t sum[3] = {1 << (kBits - 1), 1 << (kBits - 1), 1 << (kBits - 1)};
  for (const int32_t weight : taps.weights) {
    for (int c = 0; c < 3; ++c) sum[c] += from[c] * weight;
    from += step;
  }
  for (int c = 0; c < 3; ++c) out[c] = rounded(sum[c]);
}

Image resize_columns(const Image& image, const std::vector<Taps>& taps) {
  Image out{std::ssize(taps), image.height, {}};
  out.rgb.resize(size_of(out.width * out.height * 3));
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < out.width; ++x)
      blend(taps[size_of(x)], image.rgb.data() + (y * image.width + taps[size_of(x)].first) * 3, 3,
            out.rgb.data() + (y * out.width + x) * 3);
  return out;
}

Image resize_rows(const Image& image, const std::vector<Taps>& taps) {
  Image out{image.width, std::ssize(taps), {}};
  out.rgb.resize(size_of(out.width * out.height * 3));
  for (int64_t y = 0; y < out.height; ++y)
    for (int64_t x = 0; x < image.width; ++x)
      blend(taps[size_of(y)], image.rgb.data() + (taps[size_of(y)].first * image.width + x) * 3,
            image.width * 3, out.rgb.data() + (y * out.width + x) * 3);
  return out;
}

Image cut(const Image& image, const Window& window) {
  Image out{window.columns, window.rows, {}};
  for (int64_t y = 0; y < window.rows; ++y) {
    const auto* row = image.rgb.data() + ((window.top + y) * image.width + window.left) * 3;
    out.rgb.insert(out.rgb.end(), row, row + window.columns * 3);
  }
  return out;
}

Image centred_on_black(const Image& image, int64_t side) {
  Image out{side, side, std::vector<uint8_t>(size_of(side * side * 3))};
  const int64_t left = (side - image.width) / 2, top = (side - image.height) / 2;
  for (int64_t y = 0; y < image.height; ++y)
    std::copy_n(image.rgb.begin() + y * image.width * 3, image.width * 3,
                out.rgb.begin() + ((top + y) * side + left) * 3);
  return out;
}

Image fit_padded(const Image& image, const models::VisionConfig& config) {
  const int64_t longest = std::max(image.width, image.height), S = config.image;
  const auto scaled = [&](int64_t side) {
    const double exact =
        static_cast<double>(side) * static_cast<double>(S) / static_cast<double>(longest);
    return std::clamp<int64_t>(std::llround(exact), 1, S);
  };
  const int64_t width = scaled(image.width), height = scaled(image.height);
  return centred_on_black(resize(image, width, height, config.filter, {0, 0, width, height}), S);
}

Image fit_cropped(const Image& image, const models::VisionConfig& config) {
  const int64_t shortest = std::min(image.width, image.height), S = config.image;
  const auto scaled = [&](int64_t side) { return side * config.resize / shortest; };
  const int64_t width = scaled(image.width), height = scaled(image.height);
  return resize(image, width, height, config.filter, {(width - S) / 2, (height - S) / 2, S, S});
}

}  // namespace

Image resize(const Image& image, int64_t width, int64_t height, ImageFilter filter,
             const Window& window) {
  const Filter& by = kFilters[static_cast<std::size_t>(filter)];
  const bool columns = width != image.width, rows = height != image.height;
  if (!columns && !rows) return cut(image, window);
  // The axis that keeps its size is only cut.
  Image out = columns ? resize_columns(
                            image, make_taps(image.width, width, by, window.left, window.columns))
                      : cut(image, {window.left, 0, window.columns, image.height});
  if (rows) return resize_rows(out, make_taps(image.height, height, by, window.top, window.rows));
  return cut(out, {0, window.top, window.columns, window.rows});
}

Image fit(const Image& image, const models::VisionConfig& config) {
  const int64_t S = config.image;
  switch (config.fit) {
    case ImageFit::kPad:
      return fit_padded(image, config);
    case ImageFit::kCrop:
      return fit_cropped(image, config);
    case ImageFit::kStretch:
      break;
  }
  return resize(image, S, S, config.filter, {0, 0, S, S});
}

std::vector<float> normalise(const Image& fitted, const models::VisionConfig& config) {
  const int64_t count = fitted.width * fitted.height;
  std::vector<float> out(size_of(3 * count));
  for (std::size_t c = 0; c < 3; ++c)
    for (int64_t i = 0; i < count; ++i)
      out[size_of(static_cast<int64_t>(c) * count + i)] =
          (static_cast<float>(fitted.rgb[size_of(3 * i) + c]) / 255.0f - config.mean[c]) /
          config.std[c];
  return out;
}

}  // namespace crumb::vision
