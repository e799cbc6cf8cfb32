// Every operation of quant/train/cuda/ops.h but attention against its CPU twin.
#include "quant/train/cuda/ops.h"

#include "quant/rotation.h"
#include "quant/rtn.h"
#include "quant/train/adam.h"
#include "quant/train/cuda/gemm.h"
#include "quant/train/cuda/network.h"
#include "quant/train/fake_quant.h"
#include "quant/train/input_quant.h"
#include "quant/train/loss.h"
#include "quant/train/noise.h"
#include "quant/train/ops.h"
#include "tests/quant/cuda/gpu.h"

namespace crumb::quant::train::cuda {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

TEST_F(Gpu, RmsnormAndItsBackwardAreTheCpus) {
  constexpr int64_t T = 300, D = 576;
  const auto x = random_weights(T * D, 1, 1.0f), gain = random_weights(D, 2, 1.0f);
  const auto dy = bf16_values(T * D, 3);
  std::vector<float> y(x.size()), dx = random_weights(T * D, 4, 1.0f), dgain(size_of(D));
  const auto x_gpu = on_device(x), gain_gpu = on_device(gain);
  DeviceArray<bf16> y_gpu(T * D), rounded(T * D);
  DeviceArray<float> dgain_gpu(D), partial(kNormBlocks * D);
  const auto dx_gpu = on_device(dx);
  train::rmsnorm(x, gain, 1e-5f, y);
  rmsnorm(x_gpu.data(), gain_gpu.data(), 1e-5f, T, D, y_gpu.data(), stream());
  expect_close(floats(y_gpu), y, kRounded, "rmsnorm");
  train::rmsnorm_backward(x, gain, 1e-5f, dy, dx, dgain);
  rmsnorm_backward(x_gpu.data(), gain_gpu.data(), 1e-5f, on_device_bf16(dy).data(), T, D,
                   dx_gpu.data(), rounded.data(), dgain_gpu.data(), partial.data(), stream());
  expect_close(dx_gpu.to_host(), dx, kFloat, "rmsnorm dx");
  expect_close(floats(rounded), dx, kRounded, "rmsnorm dx rounded");
  expect_close(dgain_gpu.to_host(), dgain, kFloat, "rmsnorm dgain");
}

TEST_F(Gpu, EmbeddingLooksUpRows) {
  constexpr int64_t V = 50, D = 64;
  const auto table = bf16_values(V * D, 1);
  const std::vector<int32_t> ids = {3, 49, 0, 3};
  DeviceArray<float> x(std::ssize(ids) * D);
  embed(DeviceArray<int32_t>(std::span(ids)).data(), on_device_bf16(table).data(), std::ssize(ids),
        D, x.data(), stream());
  const auto found = x.to_host();
  for (std::size_t t = 0; t < ids.size(); ++t)
    for (std::size_t d = 0; d < size_of(D); ++d)
      ASSERT_EQ(found[t * size_of(D) + d], table[size_of(ids[t] * D) + d]);
}

TEST_F(Gpu, BiasesAreTheCpus) {
  constexpr int64_t T = 300, N = 320;
  const auto y = bf16_values(T * N, 1), dy = bf16_values(T * N, 2);
  const auto bias = random_weights(N, 3, 1.0f);
  const auto y_gpu = on_device_bf16(y);
  add_bias(on_device(bias).data(), T, N, y_gpu.data(), stream());
  std::vector<float> expected = y, sums(size_of(N));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expected[i] += bias[i % size_of(N)];
    sums[i % size_of(N)] += dy[i];
  }
  expect_close(floats(y_gpu), expected, kRounded, "bias");
  DeviceArray<float> dbias(N), partial(kNormBlocks * N);
  bias_backward(on_device_bf16(dy).data(), T, N, dbias.data(), partial.data(), stream());
  expect_close(dbias.to_host(), sums, kFloat, "dbias");
  const auto sum = on_device(bias);
  add(dbias.data(), N, sum.data(), stream());
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += bias[i];
  expect_close(sum.to_host(), sums, kFloat, "add");
}

TEST_F(Gpu, RopeIsTheCpus) {
  constexpr int64_t S = 64, heads = 3, turned = 2;
  models::ModelConfig config;
  config.head_dim = 64;
  config.rope_theta = 1e5f;
  const RopeAngles angles = rope_angles(config, S);
  const auto x = bf16_values(2 * S * heads * 64, 1);
  const auto x_gpu = on_device_bf16(x);
  rope(x_gpu.data(), 2 * S, S, heads * 64, turned, 64, on_device(angles.cos).data(),
       on_device(angles.sin).data(), stream());
  std::vector<float> expected = x;
  for (int64_t t = 0; t < 2 * S; ++t) {
    const auto row = std::span(expected).subspan(size_of(t * heads * 64), size_of(turned * 64));
    const auto at = [&](const std::vector<float>& v) {
      return std::span(v).subspan(size_of(t % S * 32), 32);
    };
    train::rope(row, 64, at(angles.cos), at(angles.sin));
  }
  expect_close(floats(x_gpu), expected, kRounded, "rope");
}

TEST_F(Gpu, SiluIsTheCpus) {
  constexpr int64_t T = 37, F = 192;
  const auto gate_up = bf16_values(T * 2 * F, 1, 2.0f), dy = bf16_values(T * F, 2);
  std::vector<float> gate, up, y(size_of(T * F)), dgate(y.size()), dup(y.size());
  for (int64_t t = 0; t < T; ++t) {
    const auto row = gate_up.begin() + t * 2 * F;
    gate.insert(gate.end(), row, row + F);
    up.insert(up.end(), row + F, row + 2 * F);
  }
  const auto in = on_device_bf16(gate_up);
  DeviceArray<bf16> y_gpu(T * F), d_gpu(T * 2 * F);
  silu_mul(in.data(), T, F, y_gpu.data(), stream());
  train::silu_mul(gate, up, y);
  expect_close(floats(y_gpu), y, kRounded, "silu_mul");
  silu_mul_backward(in.data(), on_device_bf16(dy).data(), T, F, d_gpu.data(), stream());
  train::silu_mul_backward(gate, up, dy, dgate, dup);
  std::vector<float> expected;
  for (int64_t t = 0; t < T; ++t)
    for (const auto* half : {&dgate, &dup})
      expected.insert(expected.end(), half->begin() + t * F, half->begin() + (t + 1) * F);
  expect_close(floats(d_gpu), expected, kRounded, "silu_mul backward");
}

TEST_F(Gpu, ProductsAreTheCpus) {
  constexpr int64_t T = 256, N = 192, K = 576;
  const auto x = bf16_values(T * K, 1), w = bf16_values(N * K, 2), dy = bf16_values(T * N, 3);
  const auto residual = random_weights(T * N, 4, 1.0f);
  const auto x_gpu = on_device_bf16(x), w_gpu = on_device_bf16(w), dy_gpu = on_device_bf16(dy);
  Gemm gemm(stream());
  std::vector<float> y(size_of(T * N)), dx(x.size()), dw(w.size());
  train::linear(x, w, {}, K, y);
  train::linear_backward(x, w, K, dy, {dx, dw, {}});
  DeviceArray<bf16> y_gpu(T * N), dx_gpu(T * K);
  DeviceArray<float> y_float(T * N), sum(T * N), dw_gpu(N * K);
  gemm.forward(x_gpu.data(), w_gpu.data(), T, N, K, y_gpu.data());
  gemm.forward(x_gpu.data(), w_gpu.data(), T, N, K, y_float.data());
  gemm.forward_add(x_gpu.data(), w_gpu.data(), T, N, K, on_device(residual).data(), sum.data());
  gemm.backward_input(dy_gpu.data(), w_gpu.data(), T, N, K, dx_gpu.data());
  gemm.backward_weight(dy_gpu.data(), x_gpu.data(), T, N, K, false, dw_gpu.data());
  expect_close(floats(y_gpu), y, kRounded, "product");
  expect_close(y_float.to_host(), y, kFloat, "product, float");
  std::vector<float> added = y;
  for (std::size_t i = 0; i < y.size(); ++i) added[i] += residual[i];
  expect_close(sum.to_host(), added, kFloat, "product + residual");
  expect_close(floats(dx_gpu), dx, kRounded, "product dx");
  expect_close(dw_gpu.to_host(), dw, kFloat, "product dw");
}

// Of a rotated INT2 matrix: codes bit for bit, weights and gradients.
TEST_F(Gpu, FakeQuantizationIsTheCpus) {
  constexpr int64_t N = 96, K = 576;
  const models::Rotation rotation{64, 7};
  auto rotated = random_weights(N * K, 1, 0.1f);
  rotate_rows(rotated, K, rotation);
  Rounded start = make_rounded(N, K, 2, 0, kernels::Grid::kSeq);
  for (int64_t n = 0; n < N; ++n)
    set_fit(&start, n, 0, {nearest_scale(0.05 + 0.0001 * static_cast<double>(n)), 3});
  FakeQuant quant{start, rotated, {}};
  for (int64_t n = 0; n < N; ++n)
    quant.log_scale.push_back(std::log(0.05f + 0.0003f * static_cast<float>(n)));
  std::vector<float> w_hat(rotated.size());
  fake_quantize(&quant, w_hat);
  std::vector<float> plain = w_hat;
  unrotate_rows(plain, K, rotation);
  const auto signs = models::rotation_signs(rotation, K);
  const auto master = on_device(rotated), log_scale = on_device(quant.log_scale),
             signs_gpu = on_device(signs);
  DeviceArray<bf16> w(N * K);
  DeviceArray<uint8_t> codes(N * K);
  const GridSpec grid{2, 1.5f};
  cuda::fake_quantize(master.data(), log_scale.data(), grid, signs_gpu.data(), N, K, w.data(),
                      codes.data(), stream());
  EXPECT_EQ(codes.to_host(), quant.rounded.codes);
  expect_close(floats(w), plain, kRounded, "fake_quantize");

  const auto G = random_weights(N * K, 5, 1.0f);
  std::vector<float> d_master = G, d_log_scale(size_of(N));
  rotate_rows(d_master, K, rotation);
  train::fake_quantize_backward(quant, d_master, d_master, d_log_scale);
  const auto gradient = on_device(G);
  DeviceArray<float> d_scale(N);
  cuda::fake_quantize_backward(master.data(), log_scale.data(), grid, signs_gpu.data(), N, K,
                               gradient.data(), d_scale.data(), stream());
  expect_close(gradient.to_host(), d_master, kFloat, "fake_quantize dmaster");
  expect_close(d_scale.to_host(), d_log_scale, 1e-4, "fake_quantize dlog_scale");

  auto other = quant.rounded.codes;
  other[5] ^= 1;
  other[77] ^= 2;
  DeviceArray<unsigned long long> changed(1);
  changed.zero(stream());
  count_changes(codes.data(), DeviceArray<uint8_t>(std::span<const uint8_t>(other)).data(), N * K,
                changed.data(), stream());
  EXPECT_EQ(changed.to_host()[0], 2u);
}

// Real widths, both grids, truncated weights; the same noise as on the host.
TEST_F(Gpu, NoisyWeightsAreTheCpus) {
  constexpr int64_t N = 70, K = 576;
  const models::Rotation rotation{64, 7};
  const auto signs = models::rotation_signs(rotation, K);
  const auto signs_gpu = on_device(signs);
  const auto master = random_weights(N * K, 1, 0.1f);
  std::vector<float> log_scale;
  for (int64_t n = 0; n < N; ++n)
    log_scale.push_back(std::log(0.05f + 0.0005f * static_cast<float>(n)));
  const auto master_gpu = on_device(master), log_scale_gpu = on_device(log_scale);
  for (const kernels::Grid grid : {kernels::Grid::kSeq, kernels::Grid::kLsq}) {
    const NoisyMatrix cpu{master, log_scale, K, grid, 3, 2.7, 12345, 1u << 20};
    const NoiseSpec gpu{noise_steps(cpu), grid == kernels::Grid::kLsq, cpu.seed, cpu.first};
    std::vector<float> y(master.size());
    train::noisy_weights(cpu, y);
    unrotate_rows(y, K, rotation);
    DeviceArray<bf16> w(N * K);
    cuda::noisy_weights(master_gpu.data(), log_scale_gpu.data(), gpu, signs_gpu.data(), N, K,
                        w.data(), stream());
    expect_close(floats(w), y, kRounded, "noisy_weights");

    const auto G = random_weights(N * K, 5, 1.0f);
    std::vector<float> d_master = G, d_log_scale(size_of(N));
    rotate_rows(d_master, K, rotation);
    const double d_bits = train::noisy_weights_backward(cpu, d_master, d_master, d_log_scale);
    const auto gradient = on_device(G);
    DeviceArray<float> d_scale(N), errors(N);
    cuda::noisy_weights_backward(master_gpu.data(), log_scale_gpu.data(), gpu, signs_gpu.data(), N,
                                 K, gradient.data(), d_scale.data(), errors.data(), stream());
    expect_close(gradient.to_host(), d_master, kFloat, "noisy_weights dmaster");
    expect_close(d_scale.to_host(), d_log_scale, 1e-4, "noisy_weights dlog_scale");
    double sum = 0, size = 0;
    for (const float e : errors.to_host()) {
      sum += static_cast<double>(e);
      size += static_cast<double>(e) * static_cast<double>(e);
    }
    EXPECT_NEAR(gpu.steps.d_bits * sum, d_bits, 1e-4 * std::sqrt(size * N));
  }
}

TEST_F(Gpu, QuantizedInputsAreTheCpus) {
  constexpr int64_t n = 70001;
  const auto x = bf16_values(n, 1), G = bf16_values(n, 2);
  const auto x_gpu = on_device_bf16(x);
  for (const bool noisy : {false, true}) {
    const InputQuant quant{6, std::log(1.7f), noisy, 9, uint64_t{3} << 40};
    std::vector<float> y(x.size()), d = G;
    train::quantize_input(quant, x, y);
    const double d_log_alpha = train::quantize_input_backward(quant, x, d);
    DeviceArray<bf16> y_gpu(n);
    cuda::quantize_input(quant, x_gpu.data(), n, y_gpu.data(), stream());
    expect_close(floats(y_gpu), y, kRounded, "quantize_input");
    const auto d_gpu = on_device_bf16(G);
    DeviceArray<double> partial(kSumBlocks), result(1);
    result.zero(stream());
    cuda::quantize_input_backward(quant, x_gpu.data(), n, d_gpu.data(), partial.data(),
                                  result.data(), stream());
    expect_close(floats(d_gpu), d, kRounded, "quantize_input dx");
    EXPECT_NEAR(result.to_host()[0], d_log_alpha, 1e-3 * std::sqrt(static_cast<double>(n)));
  }
}

struct LossCase {
  const char* name;
  LossOptions options;
};
TEST_F(Gpu, LossesAreTheCpus) {
  constexpr int64_t T = 6, V = 5000;
  const auto p = tame_values(T * V, 1, 3.0f, 9.0f);
  auto q = tame_values(T * V, 2, 3.0f, 9.0f);
  for (std::size_t i = 0; i < size_of(V); ++i) q[i] = p[i] + 0.1f * q[i];  // one token nearly right
  const std::vector<int32_t> labels = {1, 4999, -1, 0, 17, 2500};
  const auto p_gpu = on_device(p), q_gpu = on_device(q);
  const DeviceArray<int32_t> labels_gpu{std::span(labels)};
  for (const LossCase& c :
       {LossCase{"forward KL", {LossKind::kForwardKl, 0.5f}},
        LossCase{"reverse KL", {LossKind::kReverseKl, 0.5f}},
        LossCase{"JSD 0.5", {LossKind::kJsd, 0.5f}}, LossCase{"JSD 0.1", {LossKind::kJsd, 0.1f}},
        LossCase{"CAKLD 0.3", {LossKind::kCakld, 0.3f}},
        LossCase{"cross entropy", {LossKind::kCrossEntropy, 0.5f}}}) {
    constexpr float weight = 0.25f;
    std::vector<float> loss, kl, agree, d(size_of(T * V));
    for (int64_t t = 0; t < T; ++t) {
      const auto row = [&](auto& v) { return std::span(v).subspan(size_of(t * V), size_of(V)); };
      const int32_t label = labels[size_of(t)];
      const bool out = label < 0;
      const TokenLoss one = train::distill_loss(c.options, row(p), row(q), std::max(label, 0),
                                                out ? 0.0f : weight, row(d));
      loss.push_back(out ? 0.0f : weight * static_cast<float>(one.loss));
      kl.push_back(static_cast<float>(one.kl));
      agree.push_back(one.agree ? 1.0f : 0.0f);
    }
    DeviceArray<float> loss_gpu(T), kl_gpu(T), agree_gpu(T);
    DeviceArray<bf16> d_gpu(T * V);
    cuda::distill_loss(c.options, p_gpu.data(), q_gpu.data(), labels_gpu.data(), weight, T, V,
                       loss_gpu.data(), kl_gpu.data(), agree_gpu.data(), d_gpu.data(), stream());
    expect_close(loss_gpu.to_host(), loss, 1e-4, c.name);
    expect_close(kl_gpu.to_host(), kl, 1e-4, "  KL");
    expect_close(floats(d_gpu), d, kRounded, "  gradient");
    EXPECT_EQ(agree_gpu.to_host(), agree);
  }
}

TEST_F(Gpu, AdamAndSumsAreTheCpus) {
  constexpr int64_t n = 100003;
  const auto g = random_weights(n, 1, 1.0f);
  auto w = random_weights(n, 2, 1.0f), mean = random_weights(n, 3, 0.1f), square = w;
  for (float& v : square) v = v * v;
  const auto g_gpu = on_device(g), w_gpu = on_device(w), mean_gpu = on_device(mean),
             square_gpu = on_device(square);
  DeviceArray<double> partial(kSumBlocks), result(2);
  square_sum(g_gpu.data(), n, partial.data(), result.data(), stream());
  sum(g_gpu.data(), n, partial.data(), result.data() + 1, stream());
  const double squares = train::square_sum(g);
  double total = 0;
  for (const float v : g) total += static_cast<double>(v);
  EXPECT_NEAR(result.to_host()[0], squares, 1e-9 * squares);
  EXPECT_NEAR(result.to_host()[1], total, 1e-9 * squares);
  const AdamStep step = adam_step({0.9, 0.99, 1e-8, 0.01}, 3, 1e-2);
  train::adam(step, g, static_cast<float>(clip_factor(squares, 1.0)), w, mean, square);
  cuda::adam({step.rate, step.decay, step.beta1, step.beta2, step.mean_factor, step.square_factor,
              step.eps},
             result.data(), 1.0, g_gpu.data(), n, w_gpu.data(), mean_gpu.data(), square_gpu.data(),
             stream());
  expect_close(w_gpu.to_host(), w, 1e-6, "adam weights");
  expect_close(mean_gpu.to_host(), mean, 1e-6, "adam mean");
  expect_close(square_gpu.to_host(), square, 1e-6, "adam square");
}

}  // namespace
}  // namespace crumb::quant::train::cuda
