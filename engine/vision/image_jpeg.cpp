// JPEG by libjpeg-turbo. Its errors leave by longjmp, so everything with a destructor belongs to
// decode_jpeg(), and what lies between setjmp and the library has none.
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
// Needs FILE and size_t from above.
#include <jerror.h>
#include <jpeglib.h>

#include "engine/vision/image_formats.h"

namespace crumb::vision {
namespace {

// The first scan that names a block's DC takes a bit of it; blocks are 8 x 8 and, where colours are
// coarser, every fourth colour block at most counts.
constexpr int64_t kPixelsOfABit = 64;
constexpr int kMaxScans = 100;                // of a progressive file, each as costly as the image
constexpr int64_t kMaxWorkspace = 256 << 20;  // bytes that the library may take

// All that the C functions work on.
struct Decoder {
  jpeg_decompress_struct jpeg;  // first: the library's handlers get its address
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "damage";
};

Decoder* of(j_common_ptr jpeg) { return reinterpret_cast<Decoder*>(jpeg); }

[[noreturn]] void on_error(j_common_ptr jpeg) {
  Decoder* decoder = of(jpeg);
  decoder->errors.format_message(jpeg, decoder->message);
  std::longjmp(decoder->jump, 1);
}

// A warning means that pixels were made up; only bytes between segments are harmless.
void on_message(j_common_ptr jpeg, int level) {
  if (level < 0 && jpeg->err->msg_code != JWRN_EXTRANEOUS_DATA) on_error(jpeg);
}

void on_progress(j_common_ptr jpeg) {
  Decoder* decoder = of(jpeg);
  if (decoder->jpeg.input_scan_number <= kMaxScans) return;
  std::strcpy(decoder->message, "more than 100 scans");
  std::longjmp(decoder->jump, 1);
}

bool read_header(Decoder* decoder, const ImageFile& file) noexcept {
  if (setjmp(decoder->jump) != 0) return false;
  jpeg_create_decompress(&decoder->jpeg);
  decoder->jpeg.progress = &decoder->progress;
  decoder->jpeg.mem->max_memory_to_use = kMaxWorkspace;
  jpeg_mem_src(&decoder->jpeg, file.bytes.data(), file.bytes.size());
  jpeg_read_header(&decoder->jpeg, TRUE);
  return true;
}

bool decode(Decoder* decoder, uint8_t* rgb) noexcept {
  if (setjmp(decoder->jump) != 0) return false;
  jpeg_decompress_struct* jpeg = &decoder->jpeg;
  jpeg->out_color_space = JCS_RGB;
  jpeg->dct_method = JDCT_ISLOW;
  jpeg_start_decompress(jpeg);
  while (jpeg->output_scanline < jpeg->output_height) {
    JSAMPROW row = rgb + std::size_t{jpeg->output_scanline} * jpeg->output_width * 3;
    jpeg_read_scanlines(jpeg, &row, 1);
  }
  jpeg_finish_decompress(jpeg);
  return true;
}

void check_colours(const ImageFile& file, J_COLOR_SPACE space) {
  if (space == JCS_CMYK || space == JCS_YCCK)
    image_fail(file, "grey or RGB colours", "CMYK, which is for printing");
  if (space != JCS_GRAYSCALE && space != JCS_YCbCr && space != JCS_RGB)
    image_fail(file, "grey or RGB colours", "an unknown colour space");
}

}  // namespace

bool is_jpeg(std::span<const uint8_t> bytes) {
  return bytes.size() >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff;
}

Image decode_jpeg(const ImageFile& file) {
  const auto decoder = std::make_unique<Decoder>();
  decoder->jpeg.err = jpeg_std_error(&decoder->errors);
  decoder->errors.error_exit = on_error;
  decoder->errors.emit_message = on_message;
  decoder->progress.progress_monitor = on_progress;
  // Zero until it is made, so that destroying it is lawful from here on.
  decoder->jpeg.mem = nullptr;
  const auto close = [](jpeg_decompress_struct* jpeg) { jpeg_destroy_decompress(jpeg); };
  const std::unique_ptr<jpeg_decompress_struct, decltype(close)> owner(&decoder->jpeg, close);
  const auto fail = [&]() {
    image_fail(file, "a whole JPEG file", std::string("one with '") + decoder->message + "'");
  };
  if (!read_header(decoder.get(), file)) fail();
  const int64_t width = decoder->jpeg.image_width, height = decoder->jpeg.image_height;
  check_size(file, width, height, 0);
  check_size(file, width, height, width * height / (8 * kPixelsOfABit));
  check_colours(file, decoder->jpeg.jpeg_color_space);
  Image image{width, height, {}};
  image.rgb.resize(static_cast<std::size_t>(width * height * 3));
  if (!decode(decoder.get(), image.rgb.data())) fail();
  return image;
}

}  // namespace crumb::vision
