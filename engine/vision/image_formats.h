// The two decoders behind decode_image(), and what they share. Internal to engine/vision/.
#pragma once
#include <string>

#include "engine/vision/image.h"

namespace crumb::vision {

// Where an image came from, for messages.
struct ImageFile {
  std::span<const uint8_t> bytes;
  const std::string& name;
  const ImageLimits& limits;
};

// FormatError: "invalid image (NAME: expected .., found ..)".
[[noreturn]] void image_fail(const ImageFile& file, const std::string& expected,
                             const std::string& found);
// Width and height against the limits; `least_bytes` is what so many pixels need at least.
void check_size(const ImageFile& file, int64_t width, int64_t height, int64_t least_bytes);

bool is_png(std::span<const uint8_t> bytes);
bool is_jpeg(std::span<const uint8_t> bytes);
Image decode_png(const ImageFile& file);
Image decode_jpeg(const ImageFile& file);

}  // namespace crumb::vision
