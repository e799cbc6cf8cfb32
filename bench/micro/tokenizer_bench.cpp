// Processor seconds for 1 MiB of monotonous text, where a careless step would be quadratic, and of
// plain words: crumb_bench_tokenizer FILE... (tokenizer.model, tokenizer.json, .crumb or GGUF).
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>
#include <string>
#include <utility>

#include "engine/vocab_tokenizer.h"
#include "models/checkpoint.h"
#include "models/source.h"
#include "models/tokenizer_files.h"

namespace crumb {
namespace {

constexpr std::size_t kBytes = 1 << 20;
constexpr std::pair<const char*, const char*> kTexts[] = {
    {"A", "A"},
    {"space", " "},
    {"emoji", "\U0001F600"},
    {"0xFF", "\xFF"},
    {"0x80", "\x80"},
    {"half", "\xF0\x9F\x98"},
    {"newline", "\n"},
    {"digit", "1"},
    {"apostrophe", "'"},
    {"special", "<|im_"},
    {"words", "The grey cat sat, and then (at 10:45) it didn't. "}};

models::Vocab vocab_of(const std::string& path) {
  if (auto bare = models::open_tokenizer_file(path)) return std::move(bare->vocab);
  if (models::is_checkpoint(path)) return models::Checkpoint::open(path).vocab();
  return models::open_source(path).vocab;
}

double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void measure(const std::string& path) {
  const auto tokenizer = tokenizer_of(vocab_of(path));
  std::printf("%-28s", path.substr(path.rfind('/') + 1).substr(0, 27).c_str());
  for (const auto& [name, unit] : kTexts) {
    std::string text;
    while (text.size() < kBytes) text += unit;
    double best = 1e9;
    for (int run = 0; run < 3; ++run) {
      const double start = seconds();
      tokenizer->encode(text, false);
      best = std::min(best, seconds() - start);
    }
    std::printf(" %10.3f", best);
  }
  std::printf("\n");
}

}  // namespace
}  // namespace crumb

int main(int argc, char** argv) {
  std::printf("%-28s", "processor seconds");
  for (const auto& [name, unit] : crumb::kTexts) std::printf(" %10s", name);
  std::printf("\n");
  for (int i = 1; i < argc; ++i) {
    try {
      crumb::measure(argv[i]);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      return 3;
    }
  }
}
