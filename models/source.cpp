#include "models/source.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>

#include "models/errors.h"
#include "models/import.h"

namespace crumb::models {

std::string content_hash(std::span<const uint8_t> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : canonical.digest) {
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
  return text;
}

void require_finite(std::span<const float> row, std::string_view tensor, int64_t index,
                    const std::string& file) {
  // A look at all exponents at once: those of numbers below 2 never have all bits set together.
  // Only a row with larger ones is looked at number by number. This is called for every row of a
  // model.
  constexpr uint32_t kExponent = 0x7f800000u;
  const auto bits = [](float value) { return std::bit_cast<uint32_t>(value) & kExponent; };
  uint32_t seen = 0;
  for (const float value : row) seen |= std::bit_cast<uint32_t>(value);
  if ((seen & kExponent) != kExponent) return;
  if (std::any_of(row.begin(), row.end(), [&](float value) { return bits(value) == kExponent; }))
    throw Error(ExitCode::kNumeric, "NaN or infinity in tensor '" + std::string(tensor) + "' (" +
                                        file + " row " + std::to_string(index) +
                                        ": expected finite weights, found another)");
}

bool is_checkpoint(const std::string& path) {
  if (std::filesystem::is_directory(path)) return false;
  const MappedFile file(path);
  const auto bytes = file.bytes();
  // A safetensors file: eight bytes of length, then a JSON object.
  return bytes.size() > 8 && bytes[8] == '{' && std::memcmp(bytes.data(), "GGUF", 4) != 0;
}

SourceModel open_source(const std::string& path) {
  if (std::filesystem::is_directory(path)) return import_hugging_face(path);
  return open_source(MappedFile(path));
}

SourceModel open_source(MappedFile file) {
  const auto bytes = file.bytes();
  if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0)
    return import_gguf(std::move(file));
  if (bytes.size() >= 9 && bytes[8] == '{') return import_crumb(std::move(file));
  throw FormatError("not a model file (" + file.path() +
                    ": expected a GGUF or .crumb file, found other bytes)");
}

}  // namespace crumb::models
