// Text to tokens and back, and characters from a stream of bytes: the first byte of the input picks
// the split, the second how the stream is cut.
#include <array>
#include <optional>

#include "engine/vocab_tokenizer.h"
#include "models/text.h"
#include "models/tiny_model.h"
#include "tests/fuzz/fuzz.h"
#include "tokenizer/utf8.h"

namespace {

using crumb::fuzz::finding;

constexpr std::array<const char*, 4> kSplits = {"smollm", "gpt-2", "llama-bpe", "qwen2"};

std::unique_ptr<crumb::tokenizer::Tokenizer> tokenizer_with(const char* split) {
  auto vocab = crumb::models::tiny_model().vocab;
  vocab.pre = split;
  return crumb::tokenizer_of(vocab);
}

void check_round_trip(const crumb::tokenizer::Tokenizer& tokenizer, std::string_view text,
                      bool normalizes) {
  const auto ids = tokenizer.encode(text, false);
  const std::string back = tokenizer.decode(ids, false);
  if (normalizes) {
    // Normal form C of a normalized text is the text.
    if (tokenizer.decode(tokenizer.encode(back, false), false) != back)
      finding("a normalized text is normalized again");
  } else if (back != text) {
    finding("decoded text differs");
  }
  for (const int32_t id : ids)
    if (tokenizer.is_control(id)) finding("a control token from plain text");
  tokenizer.encode(text, true);
}

void check_stream(std::string_view bytes, std::size_t piece) {
  const std::string whole = crumb::tokenizer::replace_invalid_utf8(bytes);
  if (!crumb::models::valid_utf8(whole)) finding("invalid UTF-8 was let through");
  if (crumb::models::valid_utf8(bytes) && whole != bytes) finding("valid UTF-8 was changed");
  crumb::tokenizer::Utf8Stream stream;
  std::string streamed;
  for (std::size_t i = 0; i < bytes.size(); i += piece)
    streamed += stream.push(bytes.substr(i, piece));
  if (streamed + stream.finish() != whole) finding("a stream gives other text than the whole");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  static const auto tokenizers = [] {
    std::array<std::unique_ptr<crumb::tokenizer::Tokenizer>, kSplits.size()> all;
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = tokenizer_with(kSplits[i]);
    return all;
  }();
  if (size < 2) return 0;
  const std::size_t split = data[0] % kSplits.size();
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  check_round_trip(*tokenizers[split], text, std::string_view(kSplits[split]) == "qwen2");
  check_stream(text, 1 + data[1] % 8);
  return 0;
}
