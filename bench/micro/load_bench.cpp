// What the checks of a model file cost of the time to load it: crumb_bench_load FILE [ROUNDS], a
// .crumb or GGUF file. Each round loads the model and then makes all its checks once more on what
// was loaded; both in processor seconds of this process. A check that is part of reading (bounds,
// JSON) counts as reading. Without the checks a load would take the difference.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "kernels/layout.h"
#include "models/checkpoint.h"
#include "models/checkpoint_checks.h"
#include "models/import.h"
#include "models/source.h"
#include "tokenizer/bpe_check.h"
#include "tokenizer/sentencepiece_check.h"

namespace crumb {
namespace {

double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

template <class Work>
double time_of(const Work& work) {
  const double start = seconds();
  work();
  return seconds() - start;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void check_vocabulary(const models::Vocab& vocab, const tokenizer::TokenizerData& data,
                      const std::string& file) {
  models::validate(vocab, file);
  if (models::is_sentencepiece(vocab)) {
    tokenizer::check_pieces(data);
    tokenizer::check_charsmap(data.sentencepiece.charsmap);
  } else {
    const tokenizer::ShortTexts texts(data);
    tokenizer::index_tokens(data, texts);
    tokenizer::check_merges(data, texts);
  }
}

void check_bands(const models::MatrixView& view, const std::string& name, const std::string& file) {
  for (const kernels::PackedMatrix& band : view.bands) {
    const int64_t groups = kernels::group_count(band.cols, band.group);
    const auto count =
        static_cast<std::size_t>(kernels::strip_count(band.rows) * groups * kernels::kStripRows);
    models::check_scales({band.scales, count}, band.rows, groups, name, file);
    models::check_zeros(band, name, file);
  }
}

// All that Checkpoint::open and the tokenizer check, but match_layout's comparison of names.
void check_checkpoint(const models::Checkpoint& checkpoint, const std::string& header,
                      const tokenizer::TokenizerData& data) {
  const std::string& file = checkpoint.file().path();
  models::validate(checkpoint.config(), file);
  check_vocabulary(checkpoint.vocab(), data, file);
  for (const models::TensorInfo& info : models::tensor_table(checkpoint.config())) {
    if (models::may_be_quantized(info.role))
      check_bands(checkpoint.matrix(info.name), info.name, file);
    else
      models::check_finite(checkpoint.vector(info.name), info.name, file);
  }
  if (models::header_checksum(header).empty()) std::abort();
}

// A row that has just been dequantized lies in the nearest cache.
void check_source(const models::SourceModel& source, const tokenizer::TokenizerData& data,
                  std::vector<float>& row) {
  models::validate(source.config, "file");
  check_vocabulary(source.vocab, data, "file");
  for (const models::TensorInfo& info : models::tensor_table(source.config)) {
    const auto K = static_cast<std::size_t>(info.shape.back());
    row.resize(std::max(row.size(), K), 0.5f);
    for (int64_t n = 0; n < models::weights_of(info) / info.shape.back(); ++n)
      models::require_finite({row.data(), K}, info.name, n, "file");
  }
}

void measure(const std::string& path, int rounds) {
  LoadOptions options;
  options.threads = 1;
  options.pin = false;
  std::vector<double> loads, checks, shares;
  const auto run = [&](const auto& check) {
    const auto kept = Engine::load(path, options);
    for (int i = 0; i < rounds; ++i) {
      loads.push_back(time_of([&] { Engine::load(path, options); }));
      checks.push_back(time_of([&] { check(kept->tokenizer().data()); }));
      shares.push_back(100 * checks.back() / (loads.back() - checks.back()));
    }
  };
  if (models::is_checkpoint(path)) {
    const auto checkpoint = models::Checkpoint::open(path);
    const auto bytes = checkpoint.file().bytes();
    uint64_t length = 0;
    for (int i = 0; i < 8; ++i) length |= static_cast<uint64_t>(bytes[i]) << 8 * i;
    const std::string header(bytes.begin() + 8,
                             bytes.begin() + 8 + static_cast<std::ptrdiff_t>(length));
    run([&](const auto& data) { check_checkpoint(checkpoint, header, data); });
  } else {
    const auto source = models::open_source(path);
    std::vector<float> row;
    run([&](const auto& data) { check_source(source, data, row); });
  }
  std::printf("%s: load %.2f ms, of it checks %.2f ms: %.1f %% more than without (medians of %d)\n",
              path.c_str(), 1e3 * median(loads), 1e3 * median(checks), median(shares), rounds);
}

}  // namespace
}  // namespace crumb

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  try {
    crumb::measure(argv[1], argc > 2 ? std::max(1, std::atoi(argv[2])) : 21);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
