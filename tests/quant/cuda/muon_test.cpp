// Batched products and Muon against their CPU twins.
#include "quant/train/cuda/muon.h"

#include "tests/quant/cuda/gpu.h"

namespace crumb::quant::train::cuda {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

TEST_F(Gpu, BatchedProductsAreTheCpus) {
  constexpr int64_t batch = 3, rows = 64, cols = 128, inner = 192;
  constexpr float alpha = 0.75f, beta = -2.5f;
  const auto x = bf16_values(batch * rows * inner, 1), w = bf16_values(batch * inner * cols, 2),
             c = bf16_values(batch * rows * cols, 3, 10.0f);
  const auto x_gpu = on_device_bf16(x), w_gpu = on_device_bf16(w), c_gpu = on_device_bf16(c);
  DeviceArray<bf16> y(batch * rows * cols);
  Gemm gemm(stream());
  for (const Transposed form : {Transposed::kW, Transposed::kNone, Transposed::kX})
    for (const float add : {0.0f, beta}) {
      gemm.batched({form, batch, rows, cols, inner, alpha, add}, x_gpu.data(), w_gpu.data(),
                   c_gpu.data(), y.data());
      std::vector<float> expected(c.size());
      for (int64_t b = 0; b < batch; ++b)
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < cols; ++j) {
            double sum = 0;
            for (int64_t k = 0; k < inner; ++k) {
              const int64_t at_x = form == Transposed::kX ? k * rows + i : i * inner + k;
              const int64_t at_w = form == Transposed::kW ? j * inner + k : k * cols + j;
              sum += static_cast<double>(x[size_of(b * rows * inner + at_x)]) *
                     static_cast<double>(w[size_of(b * inner * cols + at_w)]);
            }
            const auto at = size_of((b * rows + i) * cols + j);
            expected[at] = static_cast<float>(alpha * sum) + add * c[at];
          }
      expect_close(floats(y), expected, kRounded, "batched product");
    }
}

// Products in bf16 against products in float: the directions of the smallest singular values
// differ, a few hundredths of the whole.
TEST_F(Gpu, MuonsStepIsTheCpus) {
  models::ModelConfig config;
  config.layers = 3;
  config.dim = 128;
  config.ffn = 192;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 64;
  const ParameterLayout layout = parameter_layout(config);
  auto w = random_weights(layout.size, 1, 0.1f), mean = random_weights(layout.size, 2, 1.0f);
  const auto start = w;
  const auto g = random_weights(layout.size, 3, 1.0f);
  const auto w_gpu = on_device(w), mean_gpu = on_device(mean), g_gpu = on_device(g);
  const std::vector<double> squares = {16.0};
  Gemm gemm(stream());
  Muon muon(layout, gemm, stream());
  const MuonStep step{0.02f, 0.95f};
  muon.step(step, DeviceArray<double>(std::span(squares)).data(), 2.0, g_gpu.data(), w_gpu.data(),
            mean_gpu.data());
  const std::vector<float> w_found = w_gpu.to_host();
  for (const auto& layer : layout.layers)
    for (const MatrixSlot& slot : layer) {
      int64_t at = slot.master_at;
      for (std::size_t i = 0; i < slot.names.size(); ++i) {
        const int64_t N = slot.rows[i], n = N * slot.K;
        const auto part = [&](auto& v) { return std::span(v).subspan(size_of(at), size_of(n)); };
        train::muon(step, part(g), 0.5f, N, slot.K, part(w), part(mean));
        std::vector<float> found, expected;
        for (auto j = size_of(at); j < size_of(at + n); ++j) {
          found.push_back(w_found[j] - start[j]);
          expected.push_back(w[j] - start[j]);
        }
        expect_close(found, expected, 0.1, slot.names[i].c_str());
        at += n;
      }
    }
  const auto masters = size_of(layout.masters);
  const std::vector<float> mean_found = mean_gpu.to_host();
  expect_close(std::span(mean_found).first(masters), std::span(mean).first(masters), kFloat,
               "momentum");
  EXPECT_TRUE(
      std::equal(w_found.begin() + layout.masters, w_found.end(), start.begin() + layout.masters));
}

}  // namespace
}  // namespace crumb::quant::train::cuda
