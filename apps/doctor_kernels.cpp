#include "apps/doctor_kernels.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "engine/rng.h"
#include "kernels/aligned.h"
#include "quant/rtn.h"

namespace crumb::apps {
namespace {

using kernels::AlignedBuffer;
using kernels::Backend;

constexpr int64_t kRows = 70;  // a whole strip, another, and a part of one
constexpr int64_t kColumns = 192;
constexpr int64_t kTokens = 5;
constexpr int64_t kHead = 64;
constexpr int64_t kPositions = 32;

AlignedBuffer<float> random_floats(int64_t n, uint64_t seed) {
  AlignedBuffer<float> values(static_cast<std::size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    values[static_cast<std::size_t>(i)] =
        static_cast<float>(uniform(seed, static_cast<uint64_t>(i)) * 4 - 2);
  return values;
}

AlignedBuffer<float> random_signs(int64_t n, uint64_t seed) {
  auto signs = random_floats(n, seed);
  for (float& sign : signs.span()) sign = sign < 0 ? -1.0f : 1.0f;
  return signs;
}

template <class T>
AlignedBuffer<T> aligned_copy(const std::vector<T>& values) {
  AlignedBuffer<T> copy(values.size());
  std::copy(values.begin(), values.end(), copy.data());
  return copy;
}

using Output = std::vector<float>;

Output to_output(const AlignedBuffer<float>& values) {
  return {values.span().begin(), values.span().end()};
}

// Activations are quantised by the backend itself: both steps are compared at once.
Output matmul(const Backend& backend, const quant::RtnOptions& options, int64_t tokens) {
  const auto w = random_floats(kRows * kColumns, 1);
  const auto data = quant::rtn(w.span(), kRows, kColumns, options, "doctor", 1);
  const auto codes = aligned_copy(data.codes);
  const auto scales = aligned_copy(data.scales);
  const auto zeros = aligned_copy(data.zeros);
  kernels::PackedMatrix matrix = quant::view(data);
  matrix.codes = codes.data();
  matrix.scales = scales.data();
  if (matrix.zeros != nullptr) matrix.zeros = zeros.data();
  const int64_t group = data.group == kColumns ? kColumns : std::min<int64_t>(data.group, 64);
  const int64_t groups = kernels::group_count(kColumns, group);
  AlignedBuffer<int8_t> q(static_cast<std::size_t>(tokens * kColumns));
  AlignedBuffer<float> x_scales(static_cast<std::size_t>(tokens * groups));
  AlignedBuffer<int32_t> sums(static_cast<std::size_t>(tokens * groups));
  for (int64_t t = 0; t < tokens; ++t) {
    const auto x = random_floats(kColumns, 2 + static_cast<uint64_t>(t));
    backend.quantize_row(x.data(), kColumns, group, kColumns, q.data() + t * kColumns,
                         x_scales.data() + t * groups, sums.data() + t * groups);
  }
  const kernels::QuantizedRows rows{q.data(), x_scales.data(), sums.data(), tokens,
                                    kColumns, group,           groups};
  AlignedBuffer<float> y(static_cast<std::size_t>(tokens * kRows));
  backend.matmul(matrix, rows, {0, kernels::strip_count(kRows)}, y.data(), kRows);
  return to_output(y);
}

Output matmul_f32(const Backend& backend) {
  const auto w = random_floats(kRows * kColumns, 1), x = random_floats(kTokens * kColumns, 2);
  AlignedBuffer<float> y(kTokens * kRows);
  backend.matmul_f32(w.data(), kColumns, x.data(), kTokens, {0, kRows}, y.data(), kRows);
  return to_output(y);
}

Output rmsnorm(const Backend& backend) {
  const auto x = random_floats(kColumns, 1), weight = random_floats(kColumns, 2);
  AlignedBuffer<float> y(kColumns);
  backend.rmsnorm(x.data(), weight.data(), kColumns, 1e-5f, y.data());
  return to_output(y);
}

Output rope(const Backend& backend) {
  auto x = random_floats(3 * kHead, 1);
  AlignedBuffer<float> cosines(kHead / 2), sines(kHead / 2);
  for (int64_t i = 0; i < kHead / 2; ++i) {
    cosines[static_cast<std::size_t>(i)] = std::cos(0.1f * static_cast<float>(i));
    sines[static_cast<std::size_t>(i)] = std::sin(0.1f * static_cast<float>(i));
  }
  backend.rope(x.data(), 3, kHead, cosines.data(), sines.data());
  return to_output(x);
}

Output silu_mul(const Backend& backend) {
  auto gate = random_floats(kColumns + 3, 1);
  const auto up = random_floats(kColumns + 3, 2);
  backend.silu_mul(gate.data(), up.data(), kColumns + 3);
  return to_output(gate);
}

Output hadamard(const Backend& backend) {
  auto x = random_floats(kColumns, 1);
  const auto signs = random_signs(kColumns, 2);
  backend.hadamard(x.data(), signs.data(), kColumns, 64);
  return to_output(x);
}

Output attend(const Backend& backend, kernels::KvType type) {
  const auto q = random_floats(kHead, 1), k = random_floats(kPositions * kHead, 2),
             v = random_floats(kPositions * kHead, 3);
  AlignedBuffer<float> scores(kernels::kAttendRows * kernels::kAttendChunk), out(kHead),
      k_scale(kPositions), v_scale(kPositions);
  AlignedBuffer<uint16_t> k16(kPositions * kHead), v16(kPositions * kHead);
  AlignedBuffer<int8_t> k8(kPositions * kHead), v8(kPositions * kHead);
  for (int64_t p = 0; p < kPositions; ++p) {
    backend.to_f16(k.data() + p * kHead, kHead, k16.data() + p * kHead);
    backend.to_f16(v.data() + p * kHead, kHead, v16.data() + p * kHead);
    k_scale.data()[p] = backend.to_i8(k.data() + p * kHead, kHead, k8.data() + p * kHead);
    v_scale.data()[p] = backend.to_i8(v.data() + p * kHead, kHead, v8.data() + p * kHead);
  }
  kernels::KvHead kv{k.data(), v.data(), nullptr, nullptr, type};
  if (type == kernels::KvType::kF16) kv = {k16.data(), v16.data(), nullptr, nullptr, type};
  if (type == kernels::KvType::kI8)
    kv = {k8.data(), v8.data(), k_scale.data(), v_scale.data(), type};
  kernels::AttendRow row{q.data(), out.data(), kPositions};
  backend.attend(kv, kHead, 0.125f, &row, 1, scores.data());
  for (float& value : out.span()) value /= row.sum;
  return to_output(out);
}

Output argmax(const Backend& backend) {
  Output found;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    auto x = random_floats(1000, seed);
    x[17 * seed] = x[900] = 5;
    found.push_back(static_cast<float>(backend.argmax(x.data(), 1000)));
  }
  return found;
}

bool same_bits(const Output& a, const Output& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

std::vector<KernelCheck> check_kernels(const Backend& backend) {
  const Backend& scalar = *kernels::find_backend("scalar");
  std::vector<KernelCheck> checks;
  const auto check = [&](std::string name, const std::function<Output(const Backend&)>& run) {
    checks.push_back({std::move(name), same_bits(run(backend), run(scalar))});
  };
  struct NamedGrid {
    const char* name;
    kernels::Grid grid;
  };
  constexpr NamedGrid kGrids[] = {
      {"seq", kernels::Grid::kSeq}, {"lsq", kernels::Grid::kLsq}, {"asym", kernels::Grid::kAsym}};
  for (const int bits : {2, 3, 4, 8})
    for (const int64_t group : {32, 64, 128, 0})
      for (const auto& grid : kGrids)
        for (const int64_t tokens : {int64_t{1}, kTokens}) {
          const std::string columns = group == 0 ? "row" : fmt::format("g{}", group);
          quant::RtnOptions options;
          options.bits = bits;
          options.group = group;
          options.grid = grid.grid;
          options.search = quant::ScaleSearch::kAbsMax;
          check(fmt::format("matmul INT{} {} {}, {} tokens", bits, columns, grid.name, tokens),
                [&](const Backend& b) { return matmul(b, options, tokens); });
        }
  check("matmul f32", matmul_f32);
  check("rmsnorm", rmsnorm);
  check("rope", rope);
  check("silu_mul", silu_mul);
  check("hadamard", hadamard);
  check("attend f32", [](const Backend& b) { return attend(b, kernels::KvType::kF32); });
  check("attend f16", [](const Backend& b) { return attend(b, kernels::KvType::kF16); });
  check("attend i8", [](const Backend& b) { return attend(b, kernels::KvType::kI8); });
  check("argmax", argmax);
  return checks;
}

}  // namespace crumb::apps
