// `.crumb` checkpoints. The checksum of the header would stop all damage at the end of opening: a
// right one is put in, so that what lies behind it is reached as well.
#include <algorithm>
#include <cstring>

#include "models/checkpoint.h"
#include "models/checkpoint_layout.h"
#include "models/import.h"
#include "tests/fuzz/fuzz.h"

namespace {

void reseal(std::vector<uint8_t>& bytes) {
  using namespace crumb::models;
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  uint64_t length = 0;
  if (bytes.size() < sizeof length) return;
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > bytes.size() - sizeof length) return;
  const std::string_view header = all.substr(sizeof length, length);
  const auto key = header.find(kHeaderChecksumKey);
  if (key == header.npos || header.size() - key < kHeaderChecksumKey.size() + kChecksumDigits)
    return;
  const std::string digits = header_checksum(header);
  std::copy(
      digits.begin(), digits.end(),
      bytes.begin() + static_cast<std::ptrdiff_t>(sizeof length + key + kHeaderChecksumKey.size()));
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace crumb;
  std::vector<uint8_t> bytes(data, data + size);
  reseal(bytes);
  const auto file = [&] { return models::MappedFile::view(bytes, "input"); };
  // The importer opens it first: what it refuses need not be opened twice.
  if (fuzz::accepts([&] { fuzz::read_weights(models::import_crumb(file())); }))
    models::Checkpoint::open(file()).verify();
  return 0;
}
