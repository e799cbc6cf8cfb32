// Generation on the GPU: the cached decoder against the trainer's forward pass, scripts, seeds.
#include "quant/train/cuda/generate.h"

#include <filesystem>
#include <fstream>

#include "quant/train/cuda/float_model.h"
#include "tests/quant/cuda/gpu.h"
#include "tests/quant/tiny_start.h"

namespace crumb::quant::train::cuda {
namespace {

namespace fs = std::filesystem;

models::SourceModel tiny_teacher() {
  models::TinyOptions tiny;
  tiny.dim = 128;
  tiny.ffn = 192;
  tiny.head_dim = 64;
  tiny.vocab = 320;
  return models::tiny_model(tiny);
}

std::vector<int32_t> generated(const TextScript& script, const GenerateOptions& options) {
  const auto path = (fs::temp_directory_path() / "crumb_generated.bin").string();
  generate(tiny_teacher(), script, options, path, {});
  std::ifstream file(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  fs::remove(path);
  std::vector<int32_t> ids;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
    ids.push_back(static_cast<unsigned char>(bytes[i]) | static_cast<unsigned char>(bytes[i + 1])
                                                             << 8);
  return ids;
}

// Greedy text is what the whole-window forward pass finds most likely, position by position.
TEST_F(Gpu, GreedyTextIsTheForwardPassesArgmax) {
  constexpr int64_t S = 64;
  GenerateOptions options;
  options.rows = options.batch = 4;
  options.length = S;
  options.sampling.temperature = 0;
  const auto ids = generated({{{5, 9, 77}, {200, 3}, {17}, {310, 4, 4, 4}}, {}, -1}, options);
  ASSERT_EQ(ids.size() % S, 0u);
  const int64_t B = std::ssize(ids) / S;  // rows that began alike are left out
  const auto teacher = tiny_teacher();
  const FloatModel model(teacher);
  Network network(teacher.config, B, S, stream(), 0);
  std::vector<LayerActivations> scratch;
  scratch.emplace_back(teacher.config, B, S);
  DeviceArray<float> last(B * S * 128), logits_gpu(B * S * 320);
  DeviceArray<bf16> hidden(B * S * 128);
  network.forward(model.weights(), DeviceArray<int32_t>(std::span<const int32_t>(ids)).data(),
                  scratch, last.data(), hidden.data());
  network.gemm().forward(hidden.data(), model.weights().head, B * S, 320, 128, logits_gpu.data());
  const auto logits = logits_gpu.to_host();
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 4; t + 1 < S; ++t) {
      const auto row = std::span(logits).subspan(static_cast<std::size_t>((b * S + t) * 320), 320);
      const float chosen =
          row[static_cast<std::size_t>(ids[static_cast<std::size_t>(b * S + t + 1)])];
      EXPECT_GT(chosen, *std::max_element(row.begin(), row.end()) - 0.05f) << b << ' ' << t;
    }
}

TEST_F(Gpu, TextDependsOnSeedAndRowOnly) {
  GenerateOptions options;
  options.rows = 32;
  options.batch = 16;
  options.length = 40;
  const TextScript script{{{1, 2, 3}, {4}}, {}, -1};
  const auto text = generated(script, options);
  EXPECT_EQ(std::ssize(text), 32 * 40);
  EXPECT_EQ(generated(script, options), text);
  GenerateOptions later = options;
  later.rows = 16;
  later.first_row = 16;
  EXPECT_EQ(generated(script, later), std::vector<int32_t>(text.begin() + 16 * 40, text.end()));
  options.sampling.seed = 2;
  EXPECT_NE(generated(script, options), text);
}

// While a student learns, chunks of any size come from a writer that stays.
TEST_F(Gpu, AWriterThatStaysWritesTheSameRows) {
  GenerateOptions options;
  options.rows = 32;
  options.batch = 8;
  options.length = 40;
  const TextScript script{{{1, 2, 3}, {4}}, {}, -1};
  const auto text = generated(script, options);
  const auto write = make_row_writers(tiny_teacher(), script, options.sampling, 8, 40, 1);
  EXPECT_EQ(write(0, 32), text);
  EXPECT_EQ(write(8, 11), std::vector<int32_t>(text.begin() + 8 * 40, text.begin() + 19 * 40));
}

TEST_F(Gpu, HeadersFollowTheEndOfATurnByTurns) {
  GenerateOptions options;
  options.rows = options.batch = 64;
  options.length = 400;
  options.sampling.min_p = 1e-6f;
  const TextScript script{{{1, 2, 3}}, {{301, 302, 303}, {304, 305}}, 2};
  const auto ids = generated(script, options);
  int turns = 0;
  for (std::size_t row = 0; row < ids.size(); row += 400) {
    int header = 0;
    for (std::size_t t = 3; t + 4 < 400; ++t) {
      if (ids[row + t] != 2) continue;
      ++turns;
      EXPECT_EQ(ids[row + t + 1], header == 0 ? 301 : 304);
      EXPECT_EQ(ids[row + t + 2], header == 0 ? 302 : 305);
      if (header == 0) {
        EXPECT_EQ(ids[row + t + 3], 303);
      }
      header = 1 - header;
    }
  }
  EXPECT_GT(turns, 20);
}

}  // namespace
}  // namespace crumb::quant::train::cuda
