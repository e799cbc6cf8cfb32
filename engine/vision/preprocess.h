// An image to what a tower sees: S x S pixels, normalised.
#pragma once
#include <vector>

#include "engine/vision/image.h"
#include "models/vision.h"

namespace crumb::vision {

// The image at another size: each axis by the filter (triangle; Catmull-Rom's cubic, a = -1/2;
// Lanczos, a = 3), widened where it shrinks so that every pixel counts. Pillow's arithmetic to the
// bit: weights of 22 bits, rounded to 8 bits after each axis, columns first. Only the columns from
// `left` and rows from `top` on, `columns` and `rows` of them, are made.
struct Window {
  int64_t left, top, columns, rows;
};
Image resize(const Image& image, int64_t width, int64_t height, models::ImageFilter filter,
             const Window& window);

// Fitted to config.image pixels a side; kPad centres the image on black.
Image fit(const Image& image, const models::VisionConfig& config);

// [3, S, S]: (value / 255 - mean) / std of each colour.
std::vector<float> normalise(const Image& fitted, const models::VisionConfig& config);

}  // namespace crumb::vision
