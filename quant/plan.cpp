#include "quant/plan.h"

#include <algorithm>
#include <utility>

#include "models/errors.h"
#include "models/tensors.h"

namespace crumb::quant {
namespace {

constexpr int64_t kTensorAlign = 64;
constexpr int kFloatBits = 32;

double bits_per_weight(int64_t bytes, int64_t weights) {
  return weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0.0;
}

PlanRow make_row(models::TensorInfo tensor, models::MatrixPlan matrix) {
  PlanRow row;
  const int64_t weights = weights_of(tensor);
  if (models::may_be_quantized(tensor.role)) {
    row.bytes = models::stored_bytes(matrix, tensor.shape[0], tensor.shape[1]);
  } else {
    row.bytes = (weights * 4 + kTensorAlign - 1) / kTensorAlign * kTensorAlign;
  }
  row.bpw = bits_per_weight(row.bytes, weights);
  row.tensor = std::move(tensor);
  row.matrix = std::move(matrix);
  return row;
}

void add_totals(Plan& plan, bool tied_head) {
  int64_t linear_bytes = 0;
  int64_t linear_weights = 0;
  int64_t weights = 0;
  const auto head = tied_head ? models::TensorRole::kEmbedding : models::TensorRole::kHead;
  for (const PlanRow& row : plan.rows) {
    const int64_t n = weights_of(row.tensor);
    plan.bytes += row.bytes;
    weights += n;
    if (row.tensor.role == models::TensorRole::kLinear && row.tensor.layer >= 0) {
      linear_bytes += row.bytes;
      linear_weights += n;
    }
    if (row.tensor.role == head) plan.head_bits = row.bpw;
  }
  plan.linear_bpw = bits_per_weight(linear_bytes, linear_weights);
  plan.total_bpw = bits_per_weight(plan.bytes, weights);
}

models::MatrixPlan float_matrix(const std::string& name) {
  models::MatrixPlan matrix;
  matrix.name = name;
  matrix.bits = kFloatBits;
  return matrix;
}

void require_equalise(const QuantizeOptions& options) {
  const Equalise method = options.equalise.method;
  const bool by_activation = method == Equalise::kAwq || method == Equalise::kAsinq;
  if (by_activation && options.linear.rotation.hadamard != 0)
    throw Error(ExitCode::kUsage,
                std::string(name_of(kEqualiseMethods, method)) +
                    " scales columns that a rotation then mixes (expected --rotate 0, found " +
                    std::to_string(options.linear.rotation.hadamard) + ")");
}

void require_matrices(const models::ModelConfig& config, const QuantizeOptions& options) {
  const auto table = models::whole_table(config);
  const auto known = [&](const std::string& name) {
    return std::any_of(table.begin(), table.end(), [&](const models::TensorInfo& tensor) {
      return tensor.name == name && models::may_be_quantized(tensor.role);
    });
  };
  for (const auto& [name, bits] : options.bits)
    if (!known(name))
      throw Error(ExitCode::kUsage, "bits for an unknown matrix (" + name + ": expected one of " +
                                        config.name + ", found " + std::to_string(bits) + " bits)");
  for (const auto& [name, bands] : options.bands)
    if (!known(name))
      throw Error(ExitCode::kUsage, "bands for an unknown matrix (" + name + ": expected one of " +
                                        config.name + ", found " + std::to_string(bands.size()) +
                                        " bands)");
}

// Statistics are of a matrix product's inputs; a lookup has none.
void require_no_inputs(const Method& method, const std::string& name) {
  if (needs_statistics(method))
    throw Error(ExitCode::kUsage,
                "a lookup has no inputs to weigh errors by (" + name +
                    ", the model has a head of its own: expected rounding to nearest, scales by "
                    "mse or absmax)");
}

// Lawful widths that cover all strips of the matrix.
void validate_bands(const std::vector<models::Band>& bands, int64_t N, const std::string& name) {
  int64_t strips = 0;
  for (const models::Band& band : bands) {
    if (band.strips < 1 || !kernels::valid_bits(band.bits))
      throw Error(ExitCode::kUsage, "unknown band (" + name + ": expected strips of 2, 3, 4 or 8 " +
                                        "bits, found " + std::to_string(band.strips) + " of " +
                                        std::to_string(band.bits) + ")");
    strips += band.strips;
  }
  if (strips != kernels::strip_count(N))
    throw Error(ExitCode::kUsage, "bands of another matrix (" + name + ": expected " +
                                      std::to_string(kernels::strip_count(N)) + " strips, found " +
                                      std::to_string(strips) + ")");
}

// Patches are as wide as they are: what cannot be divided into the method's groups or Hadamard
// blocks gets one scale a row, smaller blocks, or none.
void fit_to(int64_t K, Method* method) {
  constexpr int64_t kLeast = 32;
  if (method->group >= K) method->group = 0;
  models::Rotation& rotation = method->rotation;
  while (rotation.hadamard >= kLeast && K % rotation.hadamard != 0) rotation.hadamard /= 2;
  if (rotation.hadamard < kLeast) rotation = {};
}

}  // namespace

// Of DINOv2 ViT-S/14 (cosine of a patch's row with the floats', scripts/vision/check_tower.py):
// INT8 0.99962 and 92 ms without rotation, 0.99976 and 65 ms with; INT4 0.965, 0.977.
Method vision_method(int bits) {
  Method method;
  method.bits = bits;
  method.group = bits == 8 ? 0 : 64;
  method.grid = bits == 8 ? kernels::Grid::kSeq : kernels::Grid::kAsym;
  method.rule = bits == 8 ? ScaleRule::kAbsMax : ScaleRule::kMse;
  method.rotation = {64, 1};
  return method;
}

Method method_for(const QuantizeOptions& options, const models::TensorInfo& tensor) {
  Method method;
  switch (tensor.role) {
    case models::TensorRole::kEmbedding:
      method = options.embedding;
      break;
    case models::TensorRole::kHead:
      method = options.head;
      break;
    case models::TensorRole::kLinear:
      method = tensor.layer < 0 ? options.vision : options.linear;
      if (tensor.layer < 0) fit_to(tensor.shape[1], &method);
      break;
    case models::TensorRole::kNorm:
    case models::TensorRole::kBias:
    case models::TensorRole::kTable:
      method.bits = kFloatBits;
      break;
  }
  if (const auto found = options.bits.find(tensor.name); found != options.bits.end())
    method.bits = found->second;
  if (const auto found = options.bands.find(tensor.name); found != options.bands.end())
    method.bands = found->second;
  return method;
}

void widen_head(const models::ModelConfig& config, int64_t rows, QuantizeOptions* options) {
  if (rows == 0) return;
  const auto role = config.tied_head ? models::TensorRole::kEmbedding : models::TensorRole::kHead;
  for (const models::TensorInfo& tensor : models::tensor_table(config)) {
    if (tensor.role != role) continue;
    const int64_t N = tensor.shape[0];
    if (rows < 0 || rows % kernels::kStripRows != 0 || rows >= N)
      throw Error(ExitCode::kUsage, "rows of 8 bits (" + tensor.name +
                                        ": expected a multiple of 32 below " + std::to_string(N) +
                                        ", found " + std::to_string(rows) + ")");
    const Method method = method_for(*options, tensor);
    if (method.bits >= 8 || options->bits.count(tensor.name) > 0 || !method.bands.empty()) return;
    const int64_t strips = rows / kernels::kStripRows;
    options->bands[tensor.name] = {{strips, 8}, {kernels::strip_count(N) - strips, method.bits}};
  }
}

Plan make_plan(const models::ModelConfig& config, const QuantizeOptions& options) {
  require_matrices(config, options);
  require_equalise(options);
  Plan plan;
  for (models::TensorInfo& tensor : models::whole_table(config)) {
    models::MatrixPlan matrix = float_matrix(tensor.name);
    const Method method = method_for(options, tensor);
    if (method.bits != kFloatBits) {
      const int64_t K = tensor.shape[1];
      validate(method, tensor.shape[0], K, tensor.name);
      if (tensor.role == models::TensorRole::kEmbedding && !config.tied_head)
        require_no_inputs(method, tensor.name);
      matrix.bits = method.bits;
      if (!method.bands.empty()) {
        validate_bands(method.bands, tensor.shape[0], tensor.name);
        models::set_bands(method.bands, &matrix);
      }
      matrix.group = method.group == 0 ? K : method.group;
      matrix.grid = method.grid;
      matrix.rotation = method.rotation;
    }
    plan.rows.push_back(make_row(std::move(tensor), std::move(matrix)));
  }
  add_totals(plan, config.tied_head);
  return plan;
}

Plan plan_of(const models::Checkpoint& checkpoint) {
  Plan plan;
  for (models::TensorInfo& tensor : models::whole_table(checkpoint.config())) {
    models::MatrixPlan matrix = float_matrix(tensor.name);
    if (models::may_be_quantized(tensor.role)) {
      const models::MatrixView stored = checkpoint.matrix(tensor.name);
      if (!stored.bands.empty()) {
        models::set_bands(models::bands_of(stored.bands), &matrix);
        matrix.group = stored.bands.front().group;
        matrix.grid = stored.bands.front().grid;
        matrix.rotation = stored.rotation;
      }
    }
    plan.rows.push_back(make_row(std::move(tensor), std::move(matrix)));
  }
  add_totals(plan, checkpoint.config().tied_head);
  return plan;
}

double stored_bits(const PlanRow& row) {
  return row.matrix.bands.empty() ? row.matrix.bits : models::mean_bits(row.matrix.bands);
}

std::string_view grid_name(kernels::Grid grid) { return name_of(kGrids, grid); }

}  // namespace crumb::quant
