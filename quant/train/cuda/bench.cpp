#include "quant/train/cuda/bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <iomanip>
#include <random>

#include "quant/train/cuda/network.h"

namespace crumb::quant::train::cuda {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Median milliseconds of one call.
double milliseconds(cudaStream_t stream, const std::function<void()>& call) {
  constexpr int kCalls = 10, kRounds = 5;
  call();
  std::vector<double> times;
  for (int round = 0; round < kRounds; ++round) {
    require(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    const double begin = now();
    for (int i = 0; i < kCalls; ++i) call();
    require(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    times.push_back((now() - begin) * 1e3 / kCalls);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Row {
  const char* name;
  double calls;         // in one step
  double flops, bytes;  // of one call; 0: not printed
  std::function<void()> call;
};

// Zeros but for small numbers: the speed of products depends on the bits that flip.
DeviceArray<bf16> noise(int64_t n) {
  std::mt19937 bits(1);
  std::vector<float> values(static_cast<std::size_t>(std::min<int64_t>(n, 1 << 20)));
  for (float& v : values) v = static_cast<float>(bits() & 0xffff) * 0x1p-16f - 0.5f;
  const auto rounded = to_bf16(values);
  DeviceArray<bf16> array(n);
  for (int64_t at = 0; at < n; at += std::ssize(rounded))
    array.upload(std::span(rounded).first(
                     static_cast<std::size_t>(std::min<int64_t>(std::ssize(rounded), n - at))),
                 at);
  return array;
}

}  // namespace

void bench_operations(const models::ModelConfig& c, const CudaOptions& o, std::ostream& out) {
  const Stream stream;
  const cudaStream_t s = stream.get();
  Gemm gemm(s, o.tune);
  const int64_t T = o.B * o.S, D = c.dim, F = c.ffn, V = c.vocab, q = c.heads * c.head_dim;
  const int64_t width = q + 2 * c.kv_heads * c.head_dim, wide = std::max({2 * F, width, D});
  const AttentionSize z{o.B, o.S, c.heads, c.kv_heads, c.head_dim};
  const auto x = noise(T * wide), w = noise(std::max(V * D, 2 * F * wide)), y = noise(T * wide);
  DeviceArray<float> f1(T * D), f2(T * D), dw(wide * F), lse(T * c.heads), dots(T * c.heads);
  DeviceArray<float> logits(2 * o.chunk * V), partial(kNormBlocks * D), small(T), gain(D);
  DeviceArray<bf16> d_logits(o.chunk * V), z_out(T * wide);
  f1.zero(s), f2.zero(s), gain.zero(s), logits.zero(s), lse.zero(s), d_logits.zero(s);
  const RopeAngles angles = rope_angles(c, o.S);
  const DeviceArray<float> cos{std::span<const float>(angles.cos)},
      sin{std::span<const float>(angles.sin)};
  const auto L = static_cast<double>(c.layers), chunks = static_cast<double>(T / o.chunk);
  const auto t = static_cast<double>(T);
  struct Shape {
    const char *forward, *input, *weight;
    int64_t N, K;
    bool add;
  };
  const Shape shapes[] = {{"qkv", "qkv dx", "qkv dw", width, D, false},
                          {"o", "o dx", "o dw", D, q, true},
                          {"gate_up", "gate_up dx", "gate_up dw", 2 * F, D, false},
                          {"down", "down dx", "down dw", D, F, true}};
  std::vector<Row> rows;
  for (const Shape& h : shapes) {
    const double flops = 2 * t * static_cast<double>(h.N * h.K);
    rows.push_back({h.forward, 2 * L, flops, 0, [&] {
                      if (h.add)
                        gemm.forward_add(x.data(), w.data(), T, h.N, h.K, f1.data(), f2.data());
                      else
                        gemm.forward(x.data(), w.data(), T, h.N, h.K, z_out.data());
                    }});
    rows.push_back({h.input, L, flops, 0,
                    [&] { gemm.backward_input(y.data(), w.data(), T, h.N, h.K, z_out.data()); }});
    rows.push_back({h.weight, L, flops, 0, [&] {
                      gemm.backward_weight(y.data(), x.data(), T, h.N, h.K, false, dw.data());
                    }});
  }
  const double head = 2 * static_cast<double>(o.chunk * V * D);
  rows.push_back({"head", 2 * chunks, head, 0,
                  [&] { gemm.forward(x.data(), w.data(), o.chunk, V, D, logits.data()); }});
  rows.push_back({"head dx", chunks, head, 0, [&] {
                    gemm.backward_input(d_logits.data(), w.data(), o.chunk, V, D, z_out.data());
                  }});
  rows.push_back({"loss", chunks, 0, static_cast<double>(o.chunk * V) * 10, [&] {
                    distill_loss({}, logits.data(), logits.data() + o.chunk * V, nullptr, 1.0f,
                                 o.chunk, V, small.data(), small.data(), small.data(),
                                 d_logits.data(), s);
                  }});
  const double half = t * static_cast<double>(o.S * q) * 2;  // one causal product of attention
  rows.push_back(
      {"attention", 2 * L, half, 0, [&] { attention(z, x.data(), z_out.data(), lse.data(), s); }});
  rows.push_back({"attention backward", L, 2.5 * half, 0, [&] {
                    attention_backward(z, x.data(), y.data(), y.data(), lse.data(), cos.data(),
                                       sin.data(), dots.data(), z_out.data(), s);
                  }});
  rows.push_back(
      {"rope", 2 * L, 0, t * static_cast<double>(width - c.kv_heads * c.head_dim) * 4, [&] {
         rope(z_out.data(), T, o.S, width, c.heads + c.kv_heads, c.head_dim, cos.data(), sin.data(),
              s);
       }});
  rows.push_back({"rmsnorm", 4 * L, 0, t * static_cast<double>(D) * 6,
                  [&] { rmsnorm(f1.data(), gain.data(), 1e-5f, T, D, z_out.data(), s); }});
  rows.push_back({"rmsnorm backward", 2 * L, 0, t * static_cast<double>(D) * 16, [&] {
                    rmsnorm_backward(f1.data(), gain.data(), 1e-5f, y.data(), T, D, f2.data(),
                                     z_out.data(), gain.data(), partial.data(), s);
                  }});
  rows.push_back({"silu_mul", 2 * L, 0, t * static_cast<double>(F) * 6,
                  [&] { silu_mul(x.data(), T, F, z_out.data(), s); }});
  rows.push_back({"silu_mul backward", L, 0, t * static_cast<double>(F) * 10,
                  [&] { silu_mul_backward(x.data(), y.data(), T, F, z_out.data(), s); }});
  double total = 0;
  out << std::fixed << std::setprecision(3);
  for (const Row& row : rows) {
    const double ms = milliseconds(s, row.call);
    total += ms * row.calls;
    out << std::setw(20) << row.name << std::setw(10) << ms << " ms" << std::setw(10)
        << ms * row.calls << " ms a step";
    if (row.flops > 0) out << std::setw(10) << row.flops / ms * 1e-9 << " TFLOP/s";
    if (row.bytes > 0) out << std::setw(10) << row.bytes / ms * 1e-6 << " GB/s";
    out << '\n';
  }
  out << "sum " << total << " ms a step of " << T << " tokens: " << t / total * 1e3
      << " tokens/s\n";
}

void bench_steps(Distiller& distiller, const models::ModelConfig& config,
                 const CudaOptions& options, int steps, std::ostream& out) {
  std::mt19937 bits(1);
  StepOptions step;
  step.masters = step.norms = step.scales = adam_step({}, 1, 1e-6);
  std::vector<double> times;
  for (int i = -2; i < steps; ++i) {
    std::vector<int32_t> ids(static_cast<std::size_t>(options.B * options.S));
    for (int32_t& id : ids) id = static_cast<int32_t>(bits() % static_cast<uint32_t>(config.vocab));
    const double begin = now();
    const StepReport report = distiller.step(ids, step);
    const double seconds = now() - begin;
    if (i >= 0) times.push_back(seconds);
    if (i + 1 == steps) out << "loss " << report.loss << " norm " << report.gradient_norm << '\n';
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  out << "step " << median * 1e3 << " ms (" << times.front() * 1e3 << " to " << times.back() * 1e3
      << "), " << static_cast<double>(options.B * options.S) / median << " tokens/s\n";
}

}  // namespace crumb::quant::train::cuda
