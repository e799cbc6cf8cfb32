// PNG by libpng. Its errors leave by longjmp, so everything with a destructor belongs to
// decode_png(), and what lies between setjmp and the library has none.
#include <png.h>

#include <csetjmp>
#include <cstring>
#include <memory>

#include "engine/vision/image_formats.h"

namespace crumb::vision {
namespace {

constexpr uint8_t kSignature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
constexpr std::size_t kHeaderEnd = 8 + 8 + 13;  // of signature and IHDR's data
constexpr int64_t kMaxInflate = 1032;           // bytes out of a byte of deflate
constexpr std::size_t kMaxChunk = 1 << 20;      // of a palette or the like

struct Header {
  int64_t width, height;
  int bits, colour;  // type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA
};

uint32_t big_endian(std::span<const uint8_t> bytes, std::size_t at) {
  return uint32_t{bytes[at]} << 24 | uint32_t{bytes[at + 1]} << 16 | uint32_t{bytes[at + 2]} << 8 |
         bytes[at + 3];
}

Header read_header(const ImageFile& file) {
  if (file.bytes.size() < kHeaderEnd || std::memcmp(file.bytes.data() + 12, "IHDR", 4) != 0)
    image_fail(file, "a PNG header", std::to_string(file.bytes.size()) + " bytes without one");
  return {int64_t{big_endian(file.bytes, 16)}, int64_t{big_endian(file.bytes, 20)}, file.bytes[24],
          file.bytes[25]};
}

int64_t bits_a_pixel(const Header& header) {
  constexpr int kChannels[] = {1, 0, 3, 1, 2, 0, 4};
  const int channels = header.colour <= 6 ? kChannels[header.colour] : 0;
  return int64_t{channels} * header.bits;
}

// All that the C functions work on; no member but the pointers' targets needs a destructor.
struct Decoder {
  std::span<const uint8_t> bytes;
  std::size_t offset = 0;
  png_structp png = nullptr;
  png_infop info = nullptr;
  uint8_t* pixels = nullptr;  // [H, W, 4]
  png_bytep* rows = nullptr;  // [H]
  int64_t height = 0;
  std::jmp_buf jump;
  char message[128] = "damage";
};

void on_error(png_structp png, png_const_charp text) {
  auto* decoder = static_cast<Decoder*>(png_get_error_ptr(png));
  std::strncpy(decoder->message, text, sizeof(decoder->message) - 1);
  std::longjmp(decoder->jump, 1);
}
void on_warning(png_structp, png_const_charp) {}

void read_bytes(png_structp png, png_bytep out, std::size_t count) {
  auto* decoder = static_cast<Decoder*>(png_get_io_ptr(png));
  if (count > decoder->bytes.size() - decoder->offset) png_error(png, "the end of the file");
  std::memcpy(out, decoder->bytes.data() + decoder->offset, count);
  decoder->offset += count;
}

// Whatever is in the file as 8-bit RGBA into decoder->pixels. False: see decoder->message.
bool decode(Decoder* decoder) noexcept {
  if (setjmp(decoder->jump) != 0) return false;
  png_structp png = decoder->png;
  // Only what pixels need: texts, profiles and the rest are stepped over, never unpacked.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_set_chunk_malloc_max(png, kMaxChunk);
  png_set_read_fn(png, decoder, read_bytes);
  png_read_info(png, decoder->info);
  png_set_expand(png);
  png_set_scale_16(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 0xff, PNG_FILLER_AFTER);
  png_set_interlace_handling(png);
  png_read_update_info(png, decoder->info);
  png_read_image(png, decoder->rows);
  png_read_end(png, nullptr);
  return true;
}

// In place: [H, W, 4] -> [H, W, 3] over white.
void lay_on_white(std::vector<uint8_t>& pixels) {
  const std::size_t count = pixels.size() / 4;
  for (std::size_t i = 0; i < count; ++i) {
    const unsigned alpha = pixels[4 * i + 3];
    for (std::size_t c = 0; c < 3; ++c)
      pixels[3 * i + c] =
          static_cast<uint8_t>((pixels[4 * i + c] * alpha + 255u * (255u - alpha) + 127u) / 255u);
  }
  pixels.resize(3 * count);
}

}  // namespace

bool is_png(std::span<const uint8_t> bytes) {
  return bytes.size() >= sizeof(kSignature) &&
         std::memcmp(bytes.data(), kSignature, sizeof(kSignature)) == 0;
}

Image decode_png(const ImageFile& file) {
  const Header header = read_header(file);
  const int64_t bits = bits_a_pixel(header);
  if (bits == 0) image_fail(file, "a PNG colour type", std::to_string(header.colour));
  // Multiplied only once the sides are known to be small.
  check_size(file, header.width, header.height, 0);
  check_size(file, header.width, header.height,
             header.width * header.height * bits / 8 / kMaxInflate);
  Image image{header.width, header.height, {}};
  image.rgb.resize(static_cast<std::size_t>(header.width * header.height * 4));
  std::vector<png_bytep> rows;
  for (int64_t y = 0; y < header.height; ++y)
    rows.push_back(image.rgb.data() + y * header.width * 4);
  Decoder decoder;
  decoder.bytes = file.bytes;
  decoder.rows = rows.data();
  decoder.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &decoder, on_error, on_warning);
  if (decoder.png == nullptr) throw std::bad_alloc();
  const auto close = [&decoder](png_structp png) {
    png_destroy_read_struct(&png, &decoder.info, nullptr);
  };
  const std::unique_ptr<png_struct, decltype(close)> owner(decoder.png, close);
  decoder.info = png_create_info_struct(decoder.png);
  if (decoder.info == nullptr) throw std::bad_alloc();
  if (!decode(&decoder))
    image_fail(file, "a whole PNG file", std::string("one with '") + decoder.message + "'");
  lay_on_white(image.rgb);
  return image;
}

}  // namespace crumb::vision
