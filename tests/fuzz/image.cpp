// Pictures of strangers: PNG and JPEG to pixels. What is accepted is within the limits and whole;
// what is over them is an error of its own.
#include "engine/vision/image.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace crumb;
  vision::ImageLimits limits;
  limits.pixels = int64_t{1} << 20;
  fuzz::accepts([&] {
    try {
      const vision::Image image = vision::decode_image({data, size}, "input", limits);
      if (image.width * image.height > limits.pixels) fuzz::finding("more pixels than the limit");
      if (std::ssize(image.rgb) != 3 * image.width * image.height)
        fuzz::finding("not one value a colour and pixel");
    } catch (const Error& error) {
      if (error.code() != ExitCode::kMemory) throw;
    }
  });
  return 0;
}
