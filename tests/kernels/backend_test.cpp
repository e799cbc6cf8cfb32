#include "kernels/backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>

namespace crumb::kernels {
namespace {

TEST(Backends, ScalarIsAlwaysThereAndLast) {
  ASSERT_FALSE(backends().empty());
  EXPECT_EQ(backends().back()->name, "scalar");
  EXPECT_EQ(compiled_backends().back(), "scalar");
}

TEST(Backends, NamesAreUniqueAndFoundAgain) {
  std::set<std::string_view> names;
  for (const Backend* backend : backends()) {
    EXPECT_TRUE(names.insert(backend->name).second) << backend->name;
    EXPECT_EQ(find_backend(backend->name), backend);
    EXPECT_THAT(compiled_backends(), testing::Contains(backend->name));
  }
  EXPECT_EQ(find_backend("no such backend"), nullptr);
  EXPECT_EQ(find_backend(""), nullptr);
}

TEST(Backends, EveryFunctionIsThere) {
  for (const Backend* b : backends()) {
    EXPECT_TRUE(b->matmul && b->matmul_f32 && b->quantize_row && b->rmsnorm && b->rope &&
                b->silu_mul && b->hadamard && b->attend && b->to_f16 && b->to_i8 && b->argmax)
        << b->name;
  }
}

// Set by whoever knows the CPU (scripts/aarch64.sh names qemu's).
TEST(Backends, TheBestIsTheOneExpectedOfThisCpu) {
  const char* expected = std::getenv("CRUMB_BEST_BACKEND");
  if (expected == nullptr) GTEST_SKIP() << "CRUMB_BEST_BACKEND is not set";
  EXPECT_EQ(backends().front()->name, expected);
}

TEST(Backends, FeaturesExplainTheChoice) {
  const std::string features(cpu_features());
  if (find_backend("avx2") != nullptr) {
    EXPECT_THAT(features, testing::HasSubstr("avx2 fma f16c"));
  }
  if (find_backend("avxvnni") != nullptr) {
    EXPECT_THAT(features, testing::HasSubstr("avx_vnni"));
  }
  if (find_backend("avx512vnni") != nullptr) {
    EXPECT_THAT(features, testing::HasSubstr("avx512vnni"));
  }
}

}  // namespace
}  // namespace crumb::kernels
