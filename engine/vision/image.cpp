#include "engine/vision/image.h"

#include "engine/vision/image_formats.h"
#include "models/errors.h"

namespace crumb::vision {

void image_fail(const ImageFile& file, const std::string& expected, const std::string& found) {
  throw FormatError("invalid image (" + file.name + ": expected " + expected + ", found " + found +
                    ")");
}

void check_size(const ImageFile& file, int64_t width, int64_t height, int64_t least_bytes) {
  const std::string size = std::to_string(width) + " x " + std::to_string(height);
  if (width < 1 || height < 1) image_fail(file, "at least one pixel", size);
  if (width > file.limits.side || height > file.limits.side || width * height > file.limits.pixels)
    throw Error(ExitCode::kMemory,
                "image too large (" + file.name + ": expected at most " +
                    std::to_string(file.limits.side) + " pixels a side and " +
                    std::to_string(file.limits.pixels) + " in all, found " + size + ")",
                "scale it down first");
  const auto bytes = static_cast<int64_t>(file.bytes.size());
  if (bytes < least_bytes)
    image_fail(file, "at least " + std::to_string(least_bytes) + " bytes for " + size + " pixels",
               std::to_string(bytes));
}

Image decode_image(std::span<const uint8_t> bytes, const std::string& name,
                   const ImageLimits& limits) {
  const ImageFile file{bytes, name, limits};
  if (static_cast<int64_t>(bytes.size()) > limits.bytes)
    throw Error(ExitCode::kMemory, "image too large (" + name + ": expected at most " +
                                       std::to_string(limits.bytes) + " bytes, found " +
                                       std::to_string(bytes.size()) + ")");
  if (is_png(bytes)) return decode_png(file);
  if (is_jpeg(bytes)) return decode_jpeg(file);
  image_fail(file, "a PNG or JPEG file", bytes.empty() ? "no bytes" : "another kind of file");
}

}  // namespace crumb::vision
