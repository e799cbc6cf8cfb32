// tokenizer.json, and the tokenizer it leads to.
#include "models/tokenizer_files.h"
#include "tests/fuzz/tokenizer_use.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace crumb;
  models::Vocab vocab;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (fuzz::accepts([&] { vocab = models::read_tokenizer_json(text, "input"); }))
    fuzz::use_vocabulary(vocab);
  return 0;
}
