#include "quant/rotation.h"

#include <bit>
#include <cassert>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

// x <- H_B S x.
void rotate(double* x, std::span<const float> signs, int64_t block) {
  const auto K = std::ssize(signs);
  const double norm = 1 / std::sqrt(static_cast<double>(block));
  for (int64_t k = 0; k < K; ++k)
    x[k] *= norm * static_cast<double>(signs[static_cast<std::size_t>(k)]);
  for (int64_t begin = 0; begin < K; begin += block)
    for (int64_t half = 1; half < block; half *= 2)
      for (int64_t i = begin; i < begin + block; i += 2 * half)
        for (int64_t j = i; j < i + half; ++j) {
          const double a = x[j];
          const double b = x[j + half];
          x[j] = a + b;
          x[j + half] = a - b;
        }
}

void transpose(std::span<double> H, int64_t K) {
  for (int64_t i = 0; i < K; ++i)
    for (int64_t j = 0; j < i; ++j)
      std::swap(H[static_cast<std::size_t>(i * K + j)], H[static_cast<std::size_t>(j * K + i)]);
}

}  // namespace

void rotate_rows(std::span<float> w, int64_t K, const models::Rotation& rotation, int threads) {
  const auto signs = models::rotation_signs(rotation, K);
  const auto hadamard = kernels::backends().front()->hadamard;  // all give the same bits
  parallel_rows(std::ssize(w) / K, threads, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      hadamard(w.data() + n * K, signs.data(), K, rotation.hadamard);
  });
}

void unrotate_rows(std::span<float> w, int64_t K, const models::Rotation& rotation, int threads) {
  const auto signs = models::rotation_signs(rotation, K);
  const std::vector<float> ones(signs.size(), 1.0f);
  const auto hadamard = kernels::backends().front()->hadamard;  // all give the same bits
  parallel_rows(std::ssize(w) / K, threads, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float* row = w.data() + n * K;
      hadamard(row, ones.data(), K, rotation.hadamard);
      for (int64_t k = 0; k < K; ++k) row[k] *= signs[static_cast<std::size_t>(k)];
    }
  });
}

void rotate_hessian(std::span<double> H, int64_t K, const models::Rotation& rotation, int threads) {
  const int64_t block = rotation.hadamard;
  assert(std::ssize(H) == K * K && std::has_single_bit(static_cast<uint64_t>(block)));
  assert(K % block == 0);
  const auto signs = models::rotation_signs(rotation, K);
  // T H T^T = T (T H)^T for a symmetric H: rows, transpose, rows.
  for (int side = 0; side < 2; ++side) {
    if (side == 1) transpose(H, K);
    parallel_rows(K, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) rotate(H.data() + i * K, signs, block);
    });
  }
}

}  // namespace crumb::quant
