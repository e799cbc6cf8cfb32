#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>

#include "models/source.h"

namespace crumb::models {
namespace {

TEST(SmolLm2, OpensAndReadsEveryTensor) {
  const char* path = std::getenv("CRUMB_MODEL");
  const std::string file = path != nullptr
                               ? path
                               : std::string(std::getenv("CRUMB_SOURCE_DIR")) +
                                     "/models/checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (FILE* f = std::fopen(file.c_str(), "rb")) {
    std::fclose(f);
  } else {
    GTEST_SKIP() << "no " << file << "; models/fetch.sh brings it";
  }
  const auto start = std::chrono::steady_clock::now();
  const SourceModel model = open_source(file);
  const auto seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("open_ms", std::to_string(seconds * 1e3));
  std::printf("open %.1f ms, %s, hash %s\n", seconds * 1e3, model.description.c_str(),
              model.hash.c_str());
  EXPECT_EQ(model.config.layers, 30);
  EXPECT_EQ(model.config.head_dim, 64);
  EXPECT_TRUE(model.config.tied_head);
  EXPECT_EQ(model.vocab.tokens.size(), 49152u);
  EXPECT_EQ(model.vocab.merges.size(), 48900u);
  EXPECT_EQ(model.vocab.eos, 2);
  EXPECT_EQ(model.vocab.stop, std::vector<int32_t>{0});
  for (const TensorInfo& info : tensor_table(model.config)) {
    std::size_t size = 1;
    for (const int64_t dim : info.shape) size *= static_cast<std::size_t>(dim);
    std::vector<float> values(size);
    model.read(info.name, values);
    double sum = 0;
    for (const float v : values) sum += std::fabs(v);
    EXPECT_GT(sum, 0) << info.name;
  }
}

}  // namespace
}  // namespace crumb::models
