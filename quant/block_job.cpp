#include "quant/block_job.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "models/tensors.h"

namespace crumb::quant {
namespace {

using train::BlockWeights;
using train::LinearInput;

constexpr BlockMatrix kMatrices[] = {
    {"self_attn.q_proj", &BlockWeights::q, LinearInput::kAttention},
    {"self_attn.k_proj", &BlockWeights::k, LinearInput::kAttention},
    {"self_attn.v_proj", &BlockWeights::v, LinearInput::kAttention},
    {"self_attn.o_proj", &BlockWeights::o, LinearInput::kOutput},
    {"mlp.gate_proj", &BlockWeights::gate, LinearInput::kMlp},
    {"mlp.up_proj", &BlockWeights::up, LinearInput::kMlp},
    {"mlp.down_proj", &BlockWeights::down, LinearInput::kDown},
};

std::string_view suffix_of(const std::string& name, int64_t layer) {
  return std::string_view(name).substr(models::layer_tensor(layer, "").size());
}

std::vector<float> BlockWeights::*member_of(std::string_view suffix) {
  const auto tensors = train::block_tensors();
  return std::find_if(tensors.begin(), tensors.end(),
                      [&](const train::BlockTensor& tensor) { return tensor.suffix == suffix; })
      ->member;
}

const BlockMatrix& matrix_of(std::string_view suffix) {
  return *std::find_if(std::begin(kMatrices), std::end(kMatrices),
                       [&](const BlockMatrix& matrix) { return matrix.suffix == suffix; });
}

// The last input that was prepared: matrices that share it follow one another in the table.
class InputCache {
 public:
  // `name` is the matrix it is wanted for.
  const PreparedInput* get(const BlockAtWork& block, const std::string& name, LinearInput input,
                           const Method& method) {
    if (!needs_statistics(method)) return nullptr;
    if (prepared_ && input_ == input && prepared_alike(method_, method)) return &*prepared_;
    prepared_.reset();  // two of them need not be in memory
    const InputStatistics& statistics = block.statistics.of(input);
    prepared_ = prepare_input(statistics.H, statistics.K, method, name + " input", block.threads);
    input_ = input;
    method_ = method;
    return &*prepared_;
  }

 private:
  std::optional<PreparedInput> prepared_;
  LinearInput input_ = LinearInput::kAttention;
  Method method_;
};

}  // namespace

std::span<const BlockMatrix> block_matrices() { return kMatrices; }

const std::vector<float>& block_tensor(const BlockWeights& weights,
                                       const models::TensorInfo& tensor) {
  return weights.*member_of(suffix_of(tensor.name, tensor.layer));
}

void equalise_block(const QuantizeOptions& options, BlockAtWork& block) {
  if (options.equalise.method == Equalise::kNone) return;
  EqualiseOptions equalise_options = options.equalise;
  equalise_options.grid = {options.linear.bits, options.linear.group, options.linear.grid,
                           ScaleRule::kAbsMax};
  const bool has_statistics = !block.statistics.inputs.front().H.empty();
  equalise(block.config, equalise_options, &block.weights,
           has_statistics ? &block.statistics : nullptr, block.threads);
}

StoredBlock round_without_data(const models::SourceModel& source, const QuantizeOptions& options,
                               int64_t layer) {
  BlockAtWork block{layer,
                    models::layer_config(source.config, layer),
                    train::read_block(source, layer),
                    {},
                    {},
                    options.threads};
  for (const train::BlockTensor& tensor : train::block_tensors()) {
    const auto& values = block.weights.*tensor.member;
    if (!values.empty())
      require_finite(values, std::ssize(values),
                     models::layer_tensor(layer, std::string(tensor.suffix)));
  }
  equalise_block(options, block);
  round_block(options, block);
  return std::move(block.stored);
}

void round_block(const QuantizeOptions& options, BlockAtWork& block) {
  block.stored.clear();
  InputCache inputs;
  for (const models::TensorInfo& tensor : models::tensor_table(block.config)) {
    if (tensor.layer != block.layer) continue;
    const std::string_view suffix = suffix_of(tensor.name, tensor.layer);
    const std::vector<float>& w = block_tensor(block.weights, tensor);
    StoredTensor stored;
    stored.name = tensor.name;
    const Method method = method_for(options, tensor);
    if (method.bits == 32) {
      require_finite(w, tensor.shape.back(), tensor.name);
      stored.values = w;
    } else {
      MatrixResult result =
          round_matrix(w, tensor.shape[0], tensor.shape[1], method,
                       inputs.get(block, tensor.name, matrix_of(suffix).input, method), tensor.name,
                       block.threads);
      stored.packed = std::move(result.packed);
      stored.report = std::move(result.report);
    }
    block.stored.push_back(std::move(stored));
  }
}

BlockWeights restore_block(const models::ModelConfig& config, const StoredBlock& stored,
                           int threads) {
  BlockWeights weights;
  for (const models::TensorInfo& tensor : models::tensor_table(config)) {
    const auto found = std::find_if(stored.begin(), stored.end(),
                                    [&](const StoredTensor& s) { return s.name == tensor.name; });
    if (found == stored.end()) continue;
    weights.*member_of(suffix_of(tensor.name, tensor.layer)) =
        found->values.empty() ? restore(found->packed, threads) : found->values;
  }
  return weights;
}

}  // namespace crumb::quant
