// Small PNG and JPEG files, written here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>
// Needs FILE and size_t from above.
#include <jpeglib.h>

namespace crumb::test {

using Bytes = std::vector<uint8_t>;

inline void put32(Bytes* out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out->push_back(static_cast<uint8_t>(value >> shift));
}

inline void put_chunk(Bytes* out, std::string_view type, const Bytes& data) {
  put32(out, static_cast<uint32_t>(data.size()));
  const std::size_t begin = out->size();
  out->insert(out->end(), type.begin(), type.end());
  out->insert(out->end(), data.begin(), data.end());
  uint32_t crc = ~0u;
  for (std::size_t i = begin; i < out->size(); ++i) {
    crc ^= (*out)[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0u);
  }
  put32(out, ~crc);
}

// zlib's container with one stored (not compressed) block of less than 64 KiB.
inline Bytes stored_zlib(const Bytes& data) {
  const auto n = static_cast<uint32_t>(data.size());
  Bytes out = {0x78,
               0x01,
               0x01,
               static_cast<uint8_t>(n),
               static_cast<uint8_t>(n >> 8),
               static_cast<uint8_t>(~n),
               static_cast<uint8_t>(~n >> 8)};
  out.insert(out.end(), data.begin(), data.end());
  uint32_t a = 1, b = 0;
  for (const uint8_t byte : data) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  put32(&out, b << 16 | a);
  return out;
}

struct PngPart {
  std::string_view type;
  Bytes data;
};

// `rows`: each a filter byte 0 and the packed samples. `before`: chunks between header and pixels.
inline Bytes make_png(uint32_t width, uint32_t height, uint8_t bits, uint8_t colour,
                      const Bytes& rows, const std::vector<PngPart>& before = {},
                      uint8_t interlace = 0) {
  Bytes out = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, header;
  put32(&header, width);
  put32(&header, height);
  for (const uint8_t byte : {bits, colour, uint8_t{0}, uint8_t{0}, interlace})
    header.push_back(byte);
  put_chunk(&out, "IHDR", header);
  for (const PngPart& part : before) put_chunk(&out, part.type, part.data);
  put_chunk(&out, "IDAT", stored_zlib(rows));
  put_chunk(&out, "IEND", {});
  return out;
}

// An 8-bit RGB file of pixels [H, W, 3].
inline Bytes make_rgb_png(uint32_t width, uint32_t height, const Bytes& rgb) {
  Bytes rows;
  for (uint32_t y = 0; y < height; ++y) {
    rows.push_back(0);
    rows.insert(rows.end(), rgb.begin() + y * width * 3, rgb.begin() + (y + 1) * width * 3);
  }
  return make_png(width, height, 8, 2, rows);
}

// Pixels that differ everywhere.
inline Bytes some_pixels(uint32_t width, uint32_t height) {
  Bytes rgb;
  for (uint32_t y = 0; y < height; ++y)
    for (uint32_t x = 0; x < width; ++x)
      for (uint32_t c = 0; c < 3; ++c)
        rgb.push_back(static_cast<uint8_t>(x * 255 / width + y * (31 + 40 * c) + c * 90));
  return rgb;
}

struct JpegKind {
  int components = 3;  // 1 grey, 3 RGB, 4 CMYK
  bool progressive = false;
  int quality = 95;
};

// By libjpeg; its errors end the test program, which writes nothing wrong.
inline Bytes make_jpeg(uint32_t width, uint32_t height, const Bytes& samples,
                       const JpegKind& kind = {}) {
  jpeg_compress_struct jpeg;
  jpeg_error_mgr errors;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&jpeg, &memory, &size);
  jpeg.image_width = width;
  jpeg.image_height = height;
  jpeg.input_components = kind.components;
  jpeg.in_color_space = kind.components == 1   ? JCS_GRAYSCALE
                        : kind.components == 3 ? JCS_RGB
                                               : JCS_CMYK;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, kind.quality, TRUE);
  if (kind.progressive) jpeg_simple_progression(&jpeg);
  jpeg_start_compress(&jpeg, TRUE);
  Bytes row(static_cast<std::size_t>(width) * static_cast<std::size_t>(kind.components));
  while (jpeg.next_scanline < height) {
    const auto at = static_cast<std::ptrdiff_t>(jpeg.next_scanline * row.size());
    row.assign(samples.begin() + at,
               samples.begin() + at + static_cast<std::ptrdiff_t>(row.size()));
    JSAMPROW pointer = row.data();
    jpeg_write_scanlines(&jpeg, &pointer, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  Bytes out(memory, memory + size);
  std::free(memory);
  return out;
}

}  // namespace crumb::test
