// GGUF files: structure, every block type's decoding, then the import of a whole model.
#include "models/gguf.h"

#include "models/import.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace crumb;
  const std::span<const uint8_t> bytes(data, size);
  const bool sound = fuzz::accepts([&] {
    const models::GgufFile file(bytes, "input");
    std::vector<float> values;
    for (const models::GgufTensor& tensor : file.tensors()) {
      const int64_t blocks = static_cast<int64_t>(tensor.data.size()) / tensor.type->bytes;
      values.resize(static_cast<std::size_t>(blocks * tensor.type->values));
      tensor.type->dequantize(tensor.data.data(), blocks, values.data());
    }
  });
  if (sound)
    fuzz::accepts(
        [&] { fuzz::read_weights(models::import_gguf(models::MappedFile::view(bytes, "input"))); });
  return 0;
}
