// Rates of every function of every backend: weights a second for matmul (times tokens for prefill),
// values a second for the rest; and of packing. Matrices of about 512 KiB stay in a core's L2;
// `dram` ones are 256 MiB. Filter with --benchmark_filter='matmul/avx2/int4'.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/backend.h"
#include "kernels/float16.h"
#include "kernels/layout.h"
#include "kernels/pack.h"

namespace crumb::kernels {
namespace {

std::size_t as_size(int64_t n) { return static_cast<std::size_t>(n); }

struct MatmulCase {
  const Backend* backend;
  int bits;
  int64_t K;
  int64_t group;    // of the weights, 0: all of K
  int64_t x_group;  // of the activations, 0: all of K
  int64_t T;
  int64_t bytes;  // of codes
  const char* where;
};

std::string group_name(int64_t group) { return group == 0 ? "row" : std::to_string(group); }

std::string name_of(const MatmulCase& c) {
  std::string name = "matmul/";
  name.append(c.backend->name).append("/int").append(std::to_string(c.bits));
  name.append("/g").append(group_name(c.group)).append("/x").append(group_name(c.x_group));
  name.append("/K").append(std::to_string(c.K)).append("/T").append(std::to_string(c.T));
  return name.append("/").append(c.where);
}

void run_matmul(benchmark::State& state, const MatmulCase& c) {
  const int64_t group = c.group == 0 ? c.K : c.group;
  const int64_t x_group = c.x_group == 0 ? padded_columns(c.K) : c.x_group;
  const int64_t strips = std::max<int64_t>(1, c.bytes / strip_code_bytes(c.K, c.bits));
  const int64_t N = strips * kStripRows;
  std::mt19937_64 rng(1);
  AlignedBuffer<uint8_t> codes(as_size(strips * strip_code_bytes(c.K, c.bits)));
  for (uint8_t& byte : codes.span()) byte = static_cast<uint8_t>(rng());
  AlignedBuffer<uint16_t> scales(as_size(N * group_count(c.K, group)));
  std::ranges::fill(scales.span(), f32_to_f16(0.01f));
  const int64_t x_groups = group_count(padded_columns(c.K), x_group);
  AlignedBuffer<int8_t> q(as_size(c.T * (c.K + 63) / 64 * 64));
  for (int8_t& v : q.span()) v = static_cast<int8_t>(static_cast<int64_t>(rng() % 255) - 127);
  AlignedBuffer<float> x_scales(as_size(c.T * x_groups));
  std::ranges::fill(x_scales.span(), 0.02f);
  AlignedBuffer<int32_t> sums(as_size(c.T * x_groups));
  AlignedBuffer<float> y(as_size(N * c.T));
  const PackedMatrix w{codes.data(), scales.data(), nullptr, N, c.K, group, c.bits, Grid::kSeq};
  const QuantizedRows x{q.data(), x_scales.data(), sums.data(), c.T, (c.K + 63) / 64 * 64,
                        x_group,  x_groups};
  for (auto _ : state) {
    c.backend->matmul(w, x, {0, strips}, y.data(), N);
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  const auto weights = static_cast<double>(N * c.K * c.T);
  state.counters["weights/s"] =
      benchmark::Counter(weights, benchmark::Counter::kIsIterationInvariantRate);
  const auto read = static_cast<double>(codes.size() + 2 * scales.size());
  state.counters["bytes/s"] =
      benchmark::Counter(read, benchmark::Counter::kIsIterationInvariantRate);
}

void add_matmul(const Backend* backend) {
  constexpr int64_t kL2 = 384 << 10;
  constexpr int64_t kDram = 256 << 20;
  std::vector<MatmulCase> cases;
  for (const int bits : {2, 3, 4, 8}) {
    for (const int64_t group : {0, 32, 64, 128}) {
      for (const int64_t T : {1, 2, 4, 8, 64}) {
        cases.push_back({backend, bits, 1536, group, group == 128 ? 64 : group, T, kL2, "l2"});
      }
    }
    for (const int64_t group : {0, 64}) {
      cases.push_back({backend, bits, 576, group, group, 1, kL2, "l2"});
    }
    if (backend->name != "scalar") {
      cases.push_back({backend, bits, 1536, 64, 64, 1, kDram, "dram"});
      cases.push_back({backend, bits, 1536, 0, 0, 1, kDram, "dram"});
    }
  }
  for (const MatmulCase& c : cases) {
    benchmark::RegisterBenchmark(name_of(c).c_str(), run_matmul, c);
  }
}

struct RowBuffers {
  explicit RowBuffers(int64_t n)
      : a(as_size(n)), b(as_size(n)), y(as_size(n)), q(as_size(n)), h(as_size(n)) {
    std::mt19937_64 rng(2);
    for (float& v : a.span()) v = static_cast<float>(rng() % 2001) * 1e-3f - 1.0f;
    std::ranges::fill(b.span(), 1.0f);
  }
  AlignedBuffer<float> a;
  AlignedBuffer<float> b;
  AlignedBuffer<float> y;
  AlignedBuffer<int8_t> q;
  AlignedBuffer<uint16_t> h;
  float scales[512] = {};
  int32_t sums[512] = {};
};

using RowFunction = void (*)(const Backend&, RowBuffers&, int64_t n);
struct RowCase {
  const char* name;
  int64_t n;
  RowFunction function;
};
constexpr RowCase kRowCases[] = {
    {"rmsnorm", 576,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       k.rmsnorm(r.a.data(), r.b.data(), n, 1e-5f, r.a.data());
     }},
    {"matmul_f32/K576/T1", 64 * 576,
     [](const Backend& k, RowBuffers& r, int64_t) {
       k.matmul_f32(r.a.data(), 576, r.b.data(), 1, {0, 64}, r.y.data(), 64);
     }},
    {"matmul_f32/K576/T8", 64 * 576 * 8,
     [](const Backend& k, RowBuffers& r, int64_t) {
       k.matmul_f32(r.a.data(), 576, r.b.data(), 8, {0, 64}, r.y.data(), 64);
     }},
    {"quantize_row/32", 1536,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       k.quantize_row(r.a.data(), n, 32, n, r.q.data(), r.scales, r.sums);
     }},
    {"quantize_row/64", 1536,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       k.quantize_row(r.a.data(), n, 64, n, r.q.data(), r.scales, r.sums);
     }},
    {"quantize_row/row", 1536,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       k.quantize_row(r.a.data(), n, n, n, r.q.data(), r.scales, r.sums);
     }},
    {"rope/64", 576,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       k.rope(r.a.data(), n / 64, 64, r.b.data(), r.b.data() + 32);
     }},
    {"silu_mul", 1536,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       // In place again and again it would be measured on subnormal numbers.
       std::ranges::copy(r.a.span(), r.y.data());
       k.silu_mul(r.y.data(), r.b.data(), n);
     }},
    {"gelu_mul", 1536,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       std::ranges::copy(r.a.span(), r.y.data());
       k.gelu_mul(r.y.data(), r.b.data(), n);
     }},
    {"hadamard/64", 576,
     [](const Backend& k, RowBuffers& r, int64_t n) { k.hadamard(r.a.data(), r.b.data(), n, 64); }},
    {"hadamard/512", 1536,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       k.hadamard(r.a.data(), r.b.data(), n, 512);
     }},
    {"to_i8", 576,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       benchmark::DoNotOptimize(k.to_i8(r.a.data(), n, r.q.data()));
     }},
    {"to_f16", 576,
     [](const Backend& k, RowBuffers& r, int64_t n) { k.to_f16(r.a.data(), n, r.h.data()); }},
    {"argmax", 49152,
     [](const Backend& k, RowBuffers& r, int64_t n) {
       benchmark::DoNotOptimize(k.argmax(r.a.data(), n));
     }},
};

void add_rows(const Backend* backend) {
  for (const RowCase& c : kRowCases) {
    std::string name = c.name;
    name.append("/").append(backend->name);
    benchmark::RegisterBenchmark(name.c_str(), [backend, c](benchmark::State& state) {
      RowBuffers buffers(c.n);
      for (auto _ : state) {
        c.function(*backend, buffers, c.n);
        benchmark::ClobberMemory();
      }
      state.counters["values/s"] = benchmark::Counter(
          static_cast<double>(c.n), benchmark::Counter::kIsIterationInvariantRate);
    });
  }
}

// One head of 64 over 512 positions.
void add_attend(const Backend* backend, KvType type, const char* type_name, int64_t rows) {
  std::string name = "attend/";
  name.append(backend->name).append("/").append(type_name).append("/rows");
  name.append(std::to_string(rows));
  benchmark::RegisterBenchmark(name.c_str(), [backend, type, rows](benchmark::State& state) {
    constexpr int64_t kHead = 64;
    AlignedBuffer<uint8_t> k(kHead * kAttendChunk * sizeof(float));
    AlignedBuffer<uint8_t> v(kHead * kAttendChunk * sizeof(float));
    AlignedBuffer<float> scales(kAttendChunk), scores(kAttendRows * kAttendChunk);
    AlignedBuffer<float> q(as_size(rows * kHead)), out(as_size(rows * kHead));
    std::ranges::fill(q.span(), 0.5f);
    std::ranges::fill(scales.span(), 0.01f);
    const KvHead head{k.data(), v.data(), scales.data(), scales.data(), type};
    std::vector<AttendRow> queries;
    for (int64_t r = 0; r < rows; ++r)
      queries.push_back({q.data() + r * kHead, out.data() + r * kHead, kAttendChunk});
    for (auto _ : state) {
      backend->attend(head, kHead, 0.125f, queries.data(), rows, scores.data());
      benchmark::ClobberMemory();
    }
    state.counters["MAC/s"] =
        benchmark::Counter(static_cast<double>(2 * rows * kHead * kAttendChunk),
                           benchmark::Counter::kIsIterationInvariantRate);
  });
}

// Codes of 32 rows x 1536 columns to the packed layout, and back to floats; no instruction set.
void add_pack(int bits) {
  constexpr int64_t kRows = 32, kCols = 1536;
  const auto run = [bits](benchmark::State& state, bool unpack) {
    std::vector<uint8_t> codes(as_size(kRows * kCols));
    std::mt19937_64 rng(3);
    for (uint8_t& code : codes) code = static_cast<uint8_t>(rng() & ((1u << bits) - 1u));
    AlignedBuffer<uint8_t> packed(as_size(strip_code_bytes(kCols, bits)));
    AlignedBuffer<uint16_t> scales(kRows);
    std::ranges::fill(scales.span(), f32_to_f16(0.01f));
    std::vector<float> row(kCols);
    pack_codes(codes, kRows, kCols, bits, packed.span());
    const PackedMatrix w{packed.data(), scales.data(), nullptr, kRows, kCols, kCols, bits};
    for (auto _ : state) {
      if (!unpack) pack_codes(codes, kRows, kCols, bits, packed.span());
      for (int64_t n = 0; unpack && n < kRows; ++n) dequantize_row(w, n, row);
      benchmark::ClobberMemory();
    }
    state.counters["values/s"] =
        benchmark::Counter(kRows * kCols, benchmark::Counter::kIsIterationInvariantRate);
  };
  const std::string suffix = "/int" + std::to_string(bits);
  benchmark::RegisterBenchmark(("pack_codes" + suffix).c_str(), run, false);
  benchmark::RegisterBenchmark(("dequantize_row" + suffix).c_str(), run, true);
}

}  // namespace
}  // namespace crumb::kernels

int main(int argc, char** argv) {
  for (const auto* backend : crumb::kernels::backends()) {
    crumb::kernels::add_matmul(backend);
    crumb::kernels::add_rows(backend);
    for (const int64_t rows : {1, 3, 24}) {
      crumb::kernels::add_attend(backend, crumb::kernels::KvType::kI8, "i8", rows);
      crumb::kernels::add_attend(backend, crumb::kernels::KvType::kF16, "f16", rows);
      crumb::kernels::add_attend(backend, crumb::kernels::KvType::kF32, "f32", rows);
    }
  }
  for (const int bits : {2, 3, 4, 8}) crumb::kernels::add_pack(bits);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
