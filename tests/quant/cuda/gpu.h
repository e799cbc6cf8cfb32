// What every GPU test needs: a device or a reason to skip, and how far two arrays are apart.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <span>
#include <vector>

#include "quant/train/cuda/device.h"
#include "quant/train/ops.h"
#include "tests/quant/weights.h"

namespace crumb::quant::train::cuda {

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
      GTEST_SKIP() << "no NVIDIA GPU here";
    single_threaded_blas();
    stream_ = std::make_unique<Stream>();
  }
  cudaStream_t stream() const { return stream_->get(); }

 private:
  std::unique_ptr<Stream> stream_;
};

// Within `limit`: without the rare large values, in which a softmax would see nothing else.
inline std::vector<float> tame_values(int64_t n, uint64_t seed, float size, float limit) {
  auto values = random_weights(n, seed, size);
  for (float& v : values) v = std::clamp(v, -limit, limit);
  return values;
}
// Random values that bf16 holds exactly, so that only what the GPU computes is compared.
inline std::vector<float> bf16_values(int64_t n, uint64_t seed, float size = 1.0f,
                                      float limit = 100.0f) {
  return to_float(to_bf16(tame_values(n, seed, size, limit)));
}

inline DeviceArray<bf16> on_device_bf16(std::span<const float> values) {
  return DeviceArray<bf16>(std::span<const bf16>(to_bf16(values)));
}
inline DeviceArray<float> on_device(std::span<const float> values) {
  return DeviceArray<float>(values);
}
inline std::vector<float> floats(const DeviceArray<bf16>& values) {
  return to_float(values.to_host());
}

// |a - b| / |b| in the Euclidean norm; and no single value further off than 3 tolerances of itself
// and 30 of the mean square: one wrong element among many shows too.
inline void expect_close(std::span<const float> a, std::span<const float> b, double tolerance,
                         const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    size += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  ASSERT_GT(size, 0) << what;
  const double error = std::sqrt(difference / size);
  EXPECT_LT(error, tolerance) << what;
  const double mean = std::sqrt(size / static_cast<double>(b.size()));
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(a[i], b[i], tolerance * (30 * mean + 3 * std::abs(static_cast<double>(b[i]))))
        << what << ", element " << i;
  std::printf("  %-28s relative error %.2e\n", what, error);
}

inline constexpr double kRounded = 3e-3;  // of values rounded to bf16 (mean 1.7e-3)
inline constexpr double kFloat = 2e-5;

}  // namespace crumb::quant::train::cuda
