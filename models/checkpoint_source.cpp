// A .crumb checkpoint as a model in full precision: dequantized and rotated back.
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "models/checkpoint.h"
#include "models/errors.h"
#include "models/import.h"
#include "models/text.h"

namespace crumb::models {
namespace {

// One stored matrix with the signs of its rotation.
struct SourceMatrix {
  MatrixView view;
  std::vector<float> signs;  // [K], empty without rotation
  int64_t N = 0, K = 0;
};

struct CrumbSource {
  Checkpoint checkpoint;
  std::map<std::string, SourceMatrix, std::less<>> matrices;
  std::map<std::string, std::span<const float>, std::less<>> vectors;
};

// The stored row meets H S x, so the row of the model is (row H) S; H is symmetric and orthonormal.
void rotate_back(std::span<float> row, std::span<const float> signs, int64_t block) {
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(block)));
  const auto K = static_cast<int64_t>(row.size());
  for (int64_t begin = 0; begin < K; begin += block) {
    float* x = row.data() + begin;
    for (int64_t distance = 1; distance < block; distance *= 2)
      for (int64_t i = 0; i < block; ++i) {
        if ((i & distance) != 0) continue;
        const float a = x[i], b = x[i + distance];
        x[i] = a + b;
        x[i + distance] = a - b;
      }
  }
  for (int64_t k = 0; k < K; ++k)
    row[static_cast<std::size_t>(k)] *= scale * signs[static_cast<std::size_t>(k)];
}

void check_size(std::size_t found, int64_t expected, std::string_view name) {
  if (static_cast<int64_t>(found) != expected)
    throw Error(ExitCode::kInternal,
                "read of tensor " + std::string(name) + " into a span of another size");
}

void read_matrix(const SourceMatrix& matrix, std::span<float> out) {
  const int64_t N = matrix.N, K = matrix.K;
  for (int64_t n = 0; n < N; ++n) {
    const auto row = out.subspan(static_cast<std::size_t>(n * K), static_cast<std::size_t>(K));
    if (!matrix.view.bands.empty()) {
      dequantize_row(matrix.view.bands, n, row);
    } else {
      std::copy_n(matrix.view.f32.begin() + n * K, K, row.begin());
    }
    if (!matrix.signs.empty()) rotate_back(row, matrix.signs, matrix.view.rotation.hadamard);
  }
}

void read_tensor(const CrumbSource& source, std::string_view name, std::span<float> out) {
  const std::string& file = source.checkpoint.file().path();
  if (const auto vector = source.vectors.find(name); vector != source.vectors.end()) {
    check_size(out.size(), static_cast<int64_t>(vector->second.size()), name);
    std::copy(vector->second.begin(), vector->second.end(), out.begin());
    return;
  }
  const auto matrix = source.matrices.find(name);
  if (matrix == source.matrices.end())
    throw FormatError("unknown tensor (" + file + ": expected a tensor of the model, found " +
                      printable(name) + ")");
  const int64_t N = matrix->second.N, K = matrix->second.K;
  check_size(out.size(), N * K, name);
  read_matrix(matrix->second, out);
  for (int64_t n = 0; n < N; ++n)
    require_finite(out.subspan(static_cast<std::size_t>(n * K), static_cast<std::size_t>(K)), name,
                   n, file);
}

}  // namespace

CheckpointHeader header_of(const SourceModel& source, std::string recipe) {
  return {source.config,     source.vocab,   source.chat_template,
          source.generation, source.license, std::move(recipe)};
}

SourceModel import_crumb(MappedFile file) {
  const auto source =
      std::make_shared<CrumbSource>(CrumbSource{Checkpoint::open(std::move(file)), {}, {}});
  const Checkpoint& checkpoint = source->checkpoint;
  std::map<std::string, int64_t> weights_of_bits;
  for (const TensorInfo& info : whole_table(checkpoint.config())) {
    if (!may_be_quantized(info.role)) {
      source->vectors.emplace(info.name, checkpoint.vector(info.name));
      continue;
    }
    const int64_t N = info.shape[0], K = info.shape[1];
    SourceMatrix matrix{checkpoint.matrix(info.name), {}, N, K};
    if (matrix.view.rotation.hadamard != 0) matrix.signs = rotation_signs(matrix.view.rotation, K);
    const auto bands = bands_of(matrix.view.bands);
    weights_of_bits[(bands.empty() ? "" : "dequantized ") + widths_text(bands)] += N * K;
    source->matrices.emplace(info.name, std::move(matrix));
  }
  const auto largest =
      std::max_element(weights_of_bits.begin(), weights_of_bits.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  SourceModel model;
  model.config = checkpoint.config();
  model.vocab = checkpoint.vocab();
  model.chat_template = checkpoint.chat_template();
  model.generation = checkpoint.generation();
  model.license = checkpoint.metadata().at("license");
  model.description = largest->first;
  model.hash = content_hash(checkpoint.file().bytes());
  model.read = [data = source.get()](std::string_view name, std::span<float> out) {
    read_tensor(*data, name, out);
  };
  model.packed = [data = source.get()](const std::string& name) {
    return data->checkpoint.matrix(name);
  };
  model.storage = source;
  return model;
}

}  // namespace crumb::models
