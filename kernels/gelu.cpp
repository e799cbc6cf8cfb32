#include "kernels/gelu.h"

namespace crumb::kernels {

// No branch, table or call in the loop, so that compilers turn it into vectors.
void gelu_erf(float* x, int64_t n) noexcept {
  constexpr float kOdd[] = {-1.60960333262415e-02f, -2.95459980854025e-03f, -7.34990630326855e-04f,
                            -5.69250639462346e-05f, -2.10102402082508e-06f, 2.77068142495902e-08f,
                            -2.72614225801306e-10f};
  constexpr float kEven[] = {-1.42647390514189e-02f, -7.37332916720468e-03f, -1.68282697438203e-03f,
                             -2.13374055278905e-04f, -1.45660718464996e-05f};
  constexpr float kInverseSqrt2 = 0.70710678f;
  for (int64_t i = 0; i < n; ++i) {
    float z = x[i] * kInverseSqrt2;
    z = z < -4.0f ? -4.0f : z;
    z = z > 4.0f ? 4.0f : z;
    const float s = z * z;
    float odd = kOdd[6];
    for (int k = 5; k >= 0; --k) odd = odd * s + kOdd[k];
    float even = kEven[4];
    for (int k = 3; k >= 0; --k) even = even * s + kEven[k];
    x[i] = 0.5f * x[i] * (1.0f + z * odd / even);
  }
}

}  // namespace crumb::kernels
