// The GPU's attention against quant/train/attention.h, RoPE's backward included.
#include "quant/train/attention.h"

#include "quant/train/cuda/network.h"
#include "quant/train/cuda/ops.h"
#include "quant/train/ops.h"
#include "tests/quant/cuda/gpu.h"

namespace crumb::quant::train::cuda {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// Columns [from, from + width) of rows of `pitch` values.
std::vector<float> columns(std::span<const float> rows, int64_t pitch, int64_t from,
                           int64_t width) {
  std::vector<float> out;
  for (auto row = rows.begin(); row != rows.end(); row += pitch)
    out.insert(out.end(), row + from, row + from + width);
  return out;
}

class Attention : public Gpu, public testing::WithParamInterface<AttentionSize> {};

TEST_P(Attention, IsTheCpus) {
  const AttentionSize z = GetParam();
  const int64_t q = z.heads * z.width, kv = z.kv_heads * z.width, pitch = q + 2 * kv, T = z.B * z.S;
  models::ModelConfig config;
  config.head_dim = z.width;
  config.rope_theta = 1e5f;
  const RopeAngles angles = rope_angles(config, z.S);
  const auto qkv = bf16_values(T * pitch, 1, 1.5f, 4.0f), d_o = bf16_values(T * q, 2, 1.0f, 4.0f);
  const auto qkv_gpu = on_device_bf16(qkv), d_o_gpu = on_device_bf16(d_o);
  DeviceArray<bf16> o_gpu(T * q), d_gpu(T * pitch);
  DeviceArray<float> lse_gpu(T * z.heads), dots(T * z.heads);
  cuda::attention(z, qkv_gpu.data(), o_gpu.data(), lse_gpu.data(), stream());
  attention_backward(z, qkv_gpu.data(), o_gpu.data(), d_o_gpu.data(), lse_gpu.data(),
                     on_device(angles.cos).data(), on_device(angles.sin).data(), dots.data(),
                     d_gpu.data(), stream());
  std::vector<float> o, lse, d;
  for (int64_t b = 0; b < z.B; ++b) {
    const auto window = std::span(qkv).subspan(size_of(b * z.S * pitch), size_of(z.S * pitch));
    const auto qs = columns(window, pitch, 0, q), ks = columns(window, pitch, q, kv),
               vs = columns(window, pitch, q + kv, kv);
    const AttentionShape shape{z.S, z.heads, z.kv_heads, z.width};
    std::vector<float> out(qs.size()), sums(size_of(z.heads * z.S));
    std::vector<float> dq(qs.size()), dk(ks.size()), dv(vs.size());
    train::attention(shape, {qs, ks, vs}, out, sums);
    const auto d_out = std::span(d_o).subspan(size_of(b * z.S * q), qs.size());
    train::attention_backward(shape, {qs, ks, vs}, out, sums, d_out, {dq, dk, dv});
    rope_backward(dq, z.width, angles.cos, angles.sin);
    rope_backward(dk, z.width, angles.cos, angles.sin);
    o.insert(o.end(), out.begin(), out.end());
    lse.insert(lse.end(), sums.begin(), sums.end());
    for (int64_t t = 0; t < z.S; ++t) {
      d.insert(d.end(), dq.begin() + t * q, dq.begin() + (t + 1) * q);
      d.insert(d.end(), dk.begin() + t * kv, dk.begin() + (t + 1) * kv);
      d.insert(d.end(), dv.begin() + t * kv, dv.begin() + (t + 1) * kv);
    }
  }
  // P and dS are rounded to bf16 on the way.
  expect_close(floats(o_gpu), o, 5e-3, "attention o");
  expect_close(lse_gpu.to_host(), lse, 1e-5, "attention lse");
  const auto found = floats(d_gpu);
  expect_close(columns(found, pitch, 0, q), columns(d, pitch, 0, q), 1e-2, "attention dq");
  expect_close(columns(found, pitch, q, kv), columns(d, pitch, q, kv), 1e-2, "attention dk");
  expect_close(columns(found, pitch, q + kv, kv), columns(d, pitch, q + kv, kv), 1e-2,
               "attention dv");
}

INSTANTIATE_TEST_SUITE_P(Sizes, Attention,
                         testing::Values(AttentionSize{2, 192, 9, 3}, AttentionSize{1, 64, 1, 1},
                                         AttentionSize{3, 512, 4, 2},
                                         AttentionSize{2, 192, 6, 2, 128},
                                         AttentionSize{1, 512, 2, 1, 128}));

}  // namespace
}  // namespace crumb::quant::train::cuda
