#include "quant/blas.h"

#include <cblas.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "kernels/cpu_features.h"

namespace crumb::quant {
namespace {

TEST(Blas, UsesThisCpusKernelsAndOneThread) {
  prepare_blas();
  EXPECT_EQ(openblas_get_num_threads(), 1);
  // Kernels for one CPU only are what they are; a choice from outside stands.
  if (std::string(openblas_get_config()).find("DYNAMIC_ARCH") == std::string::npos ||
      std::getenv("OPENBLAS_CORETYPE") != nullptr)
    GTEST_SKIP();
  if (kernels::detect_cpu().avx2) EXPECT_STRNE(openblas_get_corename(), "Prescott");
  const float a[] = {1, 2, 3, 4}, b[] = {5, 6, 7, 8};
  float c[4];
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, 2, 2, 2, 1, a, 2, b, 2, 0, c, 2);
  EXPECT_EQ(c[0], 19);
  EXPECT_EQ(c[3], 50);
}

}  // namespace
}  // namespace crumb::quant
