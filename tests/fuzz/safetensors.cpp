// Safetensors containers, as Hugging Face folders have them. What is accepted covers the file
// without holes.
#include "models/safetensors.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace crumb;
  fuzz::accepts([&] {
    const models::Safetensors file = models::parse_safetensors({data, size}, "input");
    uint64_t end = 0;
    for (const models::SafetensorsEntry& entry : file.tensors) {
      if (entry.begin != end || entry.end < entry.begin) fuzz::finding("a hole or an overlap");
      end = entry.end;
    }
    if (end != file.data.size()) fuzz::finding("bytes after the last tensor");
  });
  return 0;
}
