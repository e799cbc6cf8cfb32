// tokenizer.model: our reader, the checks before the sentencepiece library, and the library on what
// passed them.
#include "models/tokenizer_files.h"
#include "tests/fuzz/tokenizer_use.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace crumb;
  models::Vocab vocab;
  if (fuzz::accepts([&] { vocab = models::read_sentencepiece_model({data, size}, "input"); }))
    fuzz::use_vocabulary(vocab);
  return 0;
}
