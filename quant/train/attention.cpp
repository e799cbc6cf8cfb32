#include "quant/train/attention.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <vector>

#include "quant/blas.h"
#include "quant/train/ops.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t kTile = 64;  // queries at a time

// One head and one tile of queries: rows [first, first + rows) see the keys [0, keys).
struct Tile {
  int64_t head, kv_head, first, rows, keys;
  int64_t q_width, kv_width;  // floats from row to row of q, o and of k, v
  int64_t q_at, kv_at;        // where the tile starts in q and o, the head in k and v
};

template <class Work>
void for_tiles(const AttentionShape& s, const Work& work) {
  for (int64_t h = 0; h < s.heads; ++h)
    for (int64_t first = 0; first < s.S; first += kTile) {
      Tile t{};
      t.head = h;
      t.kv_head = h / (s.heads / s.kv_heads);
      t.first = first;
      t.rows = std::min(kTile, s.S - first);
      t.keys = first + t.rows;
      t.q_width = s.heads * s.head_dim;
      t.kv_width = s.kv_heads * s.head_dim;
      t.q_at = first * t.q_width + h * s.head_dim;
      t.kv_at = t.kv_head * s.head_dim;
      work(t);
    }
}

struct Matrix {
  const float* data;
  int64_t ld;
  CBLAS_TRANSPOSE transpose = CblasNoTrans;
};

// C [m, n] = alpha A [m, k] B [k, n] + beta C.
void multiply(int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a, const Matrix& b,
              float beta, float* c, int64_t ldc) {
  const auto i = [](int64_t v) { return static_cast<int>(v); };
  cblas_sgemm(CblasRowMajor, a.transpose, b.transpose, i(m), i(n), i(k), alpha, a.data, i(a.ld),
              b.data, i(b.ld), beta, c, i(ldc));
}

float score_scale(const AttentionShape& s) {
  return 1.0f / std::sqrt(static_cast<float>(s.head_dim));
}

// scores [rows, keys] = q k^T / sqrt(Dh); those of later keys mean nothing.
void scores_of(const AttentionShape& s, const AttentionInputs& in, const Tile& t, float* scores) {
  multiply(t.rows, t.keys, s.head_dim, score_scale(s), {in.q.data() + t.q_at, t.q_width},
           {in.k.data() + t.kv_at, t.kv_width, CblasTrans}, 0.0f, scores, t.keys);
}

// Largest of x and sum of x, in lanes that compilers make vectors of.
constexpr int64_t kLanes = 16;
float largest(const float* x, int64_t n) {
  std::array<float, kLanes> lanes;
  lanes.fill(x[0]);
  for (int64_t i = 0; i < n - n % kLanes; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) {
      float& lane = lanes[static_cast<std::size_t>(l)];
      lane = lane < x[i + l] ? x[i + l] : lane;
    }
  const float rest = *std::max_element(x + n - n % kLanes - (n % kLanes == 0 ? 1 : 0), x + n);
  return std::max(rest, *std::max_element(lanes.begin(), lanes.end()));
}
double sum(const float* x, int64_t n) {
  std::array<float, kLanes> lanes{};
  for (int64_t i = 0; i < n - n % kLanes; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lanes[static_cast<std::size_t>(l)] += x[i + l];
  double total = 0;
  for (const float lane : lanes) total += static_cast<double>(lane);
  for (int64_t i = n - n % kLanes; i < n; ++i) total += static_cast<double>(x[i]);
  return total;
}

// Scores of one query -> weights, zero for later keys. Returns log sum exp.
float softmax_row(float* row, int64_t seen, int64_t keys) {
  const float top = largest(row, seen);
  exp_shifted({row, static_cast<std::size_t>(seen)}, top);
  const double total = sum(row, seen);
  const auto inverse = static_cast<float>(1.0 / total);
  for (int64_t j = 0; j < seen; ++j) row[j] *= inverse;
  std::fill(row + seen, row + keys, 0.0f);
  return top + static_cast<float>(std::log(total));
}

void require(const AttentionShape& s, const AttentionInputs& in) {
  assert(s.heads % s.kv_heads == 0);
  assert(std::ssize(in.q) == s.S * s.heads * s.head_dim);
  assert(std::ssize(in.k) == s.S * s.kv_heads * s.head_dim && in.v.size() == in.k.size());
  static_cast<void>(s);
  static_cast<void>(in);
}

// dp [rows, keys] holds dP = dO V^T and becomes dS without its factor 1 / sqrt(Dh).
void score_gradients(const AttentionShape& s, const Tile& t, const float* p, const float* o,
                     const float* d_o, float* dp) {
  for (int64_t r = 0; r < t.rows; ++r) {
    double dot = 0;
    for (int64_t d = 0; d < s.head_dim; ++d)
      dot += static_cast<double>(o[r * t.q_width + d]) * d_o[r * t.q_width + d];
    for (int64_t j = 0; j < t.keys; ++j)
      dp[r * t.keys + j] = p[r * t.keys + j] * (dp[r * t.keys + j] - static_cast<float>(dot));
  }
}

}  // namespace

void attention(const AttentionShape& shape, const AttentionInputs& in, std::span<float> o,
               std::span<float> lse) {
  require(shape, in);
  assert(o.size() == in.q.size() && std::ssize(lse) == shape.heads * shape.S);
  std::vector<float> p(static_cast<std::size_t>(kTile * shape.S));  // [rows, keys]
  for_tiles(shape, [&](const Tile& t) {
    scores_of(shape, in, t, p.data());
    for (int64_t r = 0; r < t.rows; ++r)
      lse[static_cast<std::size_t>(t.head * shape.S + t.first + r)] =
          softmax_row(p.data() + r * t.keys, t.first + r + 1, t.keys);
    multiply(t.rows, shape.head_dim, t.keys, 1.0f, {p.data(), t.keys},
             {in.v.data() + t.kv_at, t.kv_width}, 0.0f, o.data() + t.q_at, t.q_width);
  });
}

void attention_backward(const AttentionShape& shape, const AttentionInputs& in,
                        std::span<const float> o, std::span<const float> lse,
                        std::span<const float> d_o, const AttentionGradients& gradients) {
  require(shape, in);
  const auto size = static_cast<std::size_t>(kTile * shape.S);
  std::vector<float> p(size), ds(size);  // [rows, keys]
  const float scale = score_scale(shape);
  const int64_t Dh = shape.head_dim;
  for_tiles(shape, [&](const Tile& t) {
    scores_of(shape, in, t, p.data());
    for (int64_t r = 0; r < t.rows; ++r) {
      const float log_sum = lse[static_cast<std::size_t>(t.head * shape.S + t.first + r)];
      for (int64_t j = 0; j < t.keys; ++j) {
        float& value = p[static_cast<std::size_t>(r * t.keys + j)];
        value = j <= t.first + r ? std::exp(value - log_sum) : 0.0f;
      }
    }
    const float* g = d_o.data() + t.q_at;
    multiply(t.keys, Dh, t.rows, 1.0f, {p.data(), t.keys, CblasTrans}, {g, t.q_width}, 1.0f,
             gradients.dv.data() + t.kv_at, t.kv_width);
    multiply(t.rows, t.keys, Dh, 1.0f, {g, t.q_width},
             {in.v.data() + t.kv_at, t.kv_width, CblasTrans}, 0.0f, ds.data(), t.keys);
    score_gradients(shape, t, p.data(), o.data() + t.q_at, g, ds.data());
    multiply(t.rows, Dh, t.keys, scale, {ds.data(), t.keys}, {in.k.data() + t.kv_at, t.kv_width},
             1.0f, gradients.dq.data() + t.q_at, t.q_width);
    multiply(t.keys, Dh, t.rows, scale, {ds.data(), t.keys, CblasTrans},
             {in.q.data() + t.q_at, t.q_width}, 1.0f, gradients.dk.data() + t.kv_at, t.kv_width);
  });
}

}  // namespace crumb::quant::train
