// PNG and JPEG files in memory to pixels.
//
// Files of strangers: what a file claims is checked against the limits, and against its own length
// (a byte of deflate is at most 1032 of pixels, a block of JPEG at least a bit), before memory is
// taken. Damage of any kind is an error, not a grey half of an image.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace crumb::vision {

struct Image {
  int64_t width = 0, height = 0;  // W, H
  std::vector<uint8_t> rgb;       // [H, W, 3]
};

struct ImageLimits {
  int64_t bytes = 16 << 20;   // of the file
  int64_t side = 16384;       // pixels
  int64_t pixels = 16 << 20;  // W * H
};

// Grey and palettes become colours, transparent pixels lie on white, 16 bits are rounded to 8;
// colour profiles and the camera's orientation are not looked at. Animated files give their first
// image. `name` is for messages. Throws FormatError for what is no PNG or JPEG, damaged, or CMYK;
// Error(kMemory) for what is over the limits.
Image decode_image(std::span<const uint8_t> bytes, const std::string& name,
                   const ImageLimits& limits = {});

}  // namespace crumb::vision
