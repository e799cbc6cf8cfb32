#include "quant/orthogonality.h"

#include <algorithm>
#include <cmath>

#include "models/errors.h"
#include "models/tensors.h"
#include "quant/blas.h"
#include "quant/block_job.h"
#include "quant/parallel.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// Positions of a window, evenly spread behind the skipped ones.
std::vector<int64_t> positions_of(int64_t S, const OrthogonalityOptions& o) {
  std::vector<int64_t> positions;
  const int64_t room = S - o.skipped;
  for (int64_t i = 0; i < o.positions; ++i) positions.push_back(o.skipped + i * room / o.positions);
  return positions;
}

std::vector<float> gathered(std::span<const float> rows, int64_t K,
                            std::span<const int64_t> positions) {
  std::vector<float> out;
  for (const int64_t t : positions)
    out.insert(out.end(), rows.begin() + t * K, rows.begin() + (t + 1) * K);
  return out;
}

// x [S, D] of every window.
std::vector<std::vector<float>> embedded(const models::SourceModel& source,
                                         const CalibrationWindows& windows, int64_t count) {
  const int64_t D = source.config.dim;
  std::vector<float> table(size_of(source.config.vocab * D));
  source.read("model.embed_tokens", table);
  std::vector<std::vector<float>> x(size_of(count));
  for (int64_t w = 0; w < count; ++w)
    for (int64_t t = 0; t < windows.S; ++t) {
      const int64_t id = windows.ids[size_of(w * windows.S + t)];
      x[size_of(w)].insert(x[size_of(w)].end(), table.begin() + id * D,
                           table.begin() + (id + 1) * D);
    }
  return x;
}

}  // namespace

std::vector<float> centred_gram(std::span<const float> F, int64_t n, int64_t p) {
  // Centring the columns of F centres both sides of its Gram matrix.
  std::vector<double> mean(size_of(p));
  for (int64_t t = 0; t < n; ++t)
    for (int64_t k = 0; k < p; ++k)
      mean[size_of(k)] += static_cast<double>(F[size_of(t * p + k)]) / static_cast<double>(n);
  std::vector<float> centred(F.size());
  for (int64_t t = 0; t < n; ++t)
    for (int64_t k = 0; k < p; ++k)
      centred[size_of(t * p + k)] =
          static_cast<float>(static_cast<double>(F[size_of(t * p + k)]) - mean[size_of(k)]);
  std::vector<float> gram(size_of(n * n));
  const auto N = static_cast<blasint>(n), P = static_cast<blasint>(p);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, N, N, P, 1.0f, centred.data(), P,
              centred.data(), P, 0.0f, gram.data(), N);
  double squares = 0;
  for (const float v : gram) squares += static_cast<double>(v) * static_cast<double>(v);
  const auto factor = static_cast<float>(squares > 0 ? 1 / std::sqrt(squares) : 0);
  for (float& v : gram) v *= factor;
  return gram;
}

std::vector<double> orthogonality_matrix(std::span<const std::vector<float>> grams, int threads) {
  const auto L = std::ssize(grams);
  std::vector<double> orm(size_of(L * L));
  parallel_rows(L, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j <= i; ++j) {
        const auto &a = grams[size_of(i)], &b = grams[size_of(j)];
        double sum = 0;
        // Blocks in float, which compilers make vectors of, and their sums in double.
        for (std::size_t at = 0; at < a.size(); at += 256) {
          float lanes[16] = {};
          const std::size_t stop = std::min(at + 256, a.size());
          for (std::size_t k = at; k < stop; ++k) lanes[k % 16] += a[k] * b[k];
          for (const float lane : lanes) sum += static_cast<double>(lane);
        }
        orm[size_of(i * L + j)] = orm[size_of(j * L + i)] = sum;
      }
  });
  return orm;
}

Orthogonality measure_orthogonality(const models::SourceModel& source,
                                    const CalibrationWindows& windows,
                                    const OrthogonalityOptions& o, const ProgressFn& progress) {
  train::single_threaded_blas();
  const models::ModelConfig& c = source.config;
  const int64_t S = windows.S, count = std::min(o.windows, windows.count());
  if (count < 1 || S - o.skipped < o.positions)
    throw Error(ExitCode::kUsage, "orthogonality (calibration windows: expected one of " +
                                      std::to_string(o.skipped + o.positions) +
                                      " tokens or more, found " + std::to_string(S) + ")");
  Orthogonality result;
  result.positions = count * o.positions;
  const std::vector<int64_t> positions = positions_of(S, o);
  const train::BlockContext context(c, S);
  auto x = embedded(source, windows, count);
  std::vector<std::vector<float>> grams;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    if (progress && !progress({"orthogonality", "", layer, c.layers})) throw Interrupted{};
    const train::BlockWeights weights = train::read_block(source, layer);
    const train::BlockShape shape = train::shape_of(c, weights);
    std::vector<std::array<std::vector<float>, train::kLinearInputs.size()>> inputs(size_of(count));
    parallel_rows(count, o.threads, [&](int64_t begin, int64_t end) {
      for (int64_t w = begin; w < end; ++w) {
        train::BlockActivations activations(c, S);
        train::block_forward(context, weights, x[size_of(w)], activations, x[size_of(w)]);
        for (const train::LinearInput input : train::kLinearInputs)
          inputs[size_of(w)][static_cast<std::size_t>(input)] =
              gathered(train::linear_input(activations, input),
                       train::linear_input_width(shape, input), positions);
      }
    });
    const auto matrices = block_matrices();
    const std::size_t first = grams.size();
    grams.resize(first + matrices.size());
    for (const BlockMatrix& m : matrices)
      result.names.push_back(models::layer_tensor(layer, std::string(m.suffix)));
    parallel_rows(std::ssize(matrices), o.threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const BlockMatrix& m = matrices[size_of(i)];
        const std::vector<float>& w = weights.*m.member;
        const int64_t K = train::linear_input_width(shape, m.input), N = std::ssize(w) / K;
        std::vector<float> F;
        for (const auto& window : inputs) {
          const auto& in = window[static_cast<std::size_t>(m.input)];
          std::vector<float> out(size_of(o.positions * N));
          train::linear(in, w, {}, K, out);
          F.insert(F.end(), out.begin(), out.end());
        }
        grams[first + size_of(i)] = centred_gram(F, result.positions, N);
      }
    });
  }
  result.orm = orthogonality_matrix(grams, o.threads);
  return result;
}

std::vector<double> redundancy(const Orthogonality& orthogonality) {
  const std::size_t L = orthogonality.names.size();
  std::vector<double> gamma(L);
  for (std::size_t i = 0; i < L; ++i)
    for (std::size_t j = 0; j < L; ++j)
      if (i != j) gamma[i] += orthogonality.orm[i * L + j];
  return gamma;
}

}  // namespace crumb::quant
