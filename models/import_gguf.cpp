// GGUF metadata and tensors of the families in architectures.cpp -> ours.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "models/architectures.h"
#include "models/errors.h"
#include "models/import.h"
#include "models/rope_scaling.h"
#include "models/text.h"

namespace crumb::models {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

struct SourceTensor {
  const GgufTensor* tensor = nullptr;
  int64_t half_split_heads = 0;  // Dh if the rows must be permuted, else 0
  int64_t first_row = 0;         // of a fused matrix
};

// Everything behind SourceModel::read.
struct Import {
  MappedFile mapping;
  GgufFile gguf;
  std::map<std::string, SourceTensor, std::less<>> tensors;  // by our name

  explicit Import(MappedFile file)
      : mapping(std::move(file)), gguf(mapping.bytes(), mapping.path()) {}
};

const Architecture& architecture_of(const GgufFile& gguf) {
  const auto name = gguf.text("general.architecture");
  const Architecture* architecture = name ? find_architecture(*name) : nullptr;
  if (architecture == nullptr)
    gguf.fail("general.architecture", "one of " + architecture_names(),
              name ? printable(*name) : "nothing");
  return *architecture;
}

int64_t required(const GgufFile& gguf, const std::string& key) {
  const auto value = gguf.integer(key);
  if (!value) gguf.fail(key, "an integer", "nothing");
  return *value;
}

// Features that would change the arithmetic and that this program does not have.
void refuse_unsupported(const GgufFile& gguf, const std::string& prefix,
                        const ModelConfig& config) {
  const auto expect = [&](const std::string& key, int64_t wanted, const char* why) {
    const auto value = gguf.integer(prefix + key);
    if (value && *value != wanted)
      gguf.fail(prefix + key, std::to_string(wanted) + " (" + why + ")", std::to_string(*value));
  };
  expect("expert_count", 0, "mixtures of experts are not supported");
  expect("attention.value_length", config.head_dim, "the length of a key");
  expect("rope.dimension_count", config.head_dim, "partial RoPE is not supported");
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    const auto cap = gguf.real(prefix + key);
    if (cap && *cap != 0.0f)
      gguf.fail(prefix + key, "0 (soft capping is not supported)", std::to_string(*cap));
  }
}

// RoPE scaling by metadata; llama-3's lies in a tensor (read_rope_factors).
void import_rope_scaling(const GgufFile& gguf, const std::string& prefix, ModelConfig& config) {
  const std::string key = prefix + "rope.scaling.";
  const std::string type = gguf.text(key + "type").value_or("none");
  // Older converters wrote a bare factor; 0 and 1 mean none.
  const float bare = gguf.real(prefix + "rope.scale_linear").value_or(0);
  const float factor = gguf.real(key + "factor").value_or(bare != 0 ? bare : 1.0f);
  if (!(factor >= 1.0f && factor <= 1e4f)) {
    if (factor == 0.0f) return;
    gguf.fail(key + "factor", "1..10000", std::to_string(factor));
  }
  RopeScaling scaling;
  if (type == "yarn") {
    const auto original = gguf.integer(key + "original_context_length").value_or(config.context);
    if (original < 1)
      gguf.fail(key + "original_context_length", "at least 1", std::to_string(original));
    Yarn yarn{config.rope_theta, factor, static_cast<double>(original)};
    yarn.beta_fast = gguf.real(key + "yarn_beta_fast").value_or(32.0f);
    yarn.beta_slow = gguf.real(key + "yarn_beta_slow").value_or(1.0f);
    if (!(yarn.beta_fast >= yarn.beta_slow && yarn.beta_slow > 0))
      gguf.fail(key + "yarn_beta_slow", "above 0, at most yarn_beta_fast",
                std::to_string(yarn.beta_slow));
    scaling = yarn_scaling(config.head_dim, yarn);
    scaling.magnitude *= gguf.real(key + "attn_factor").value_or(1.0f);
  } else if (type == "linear" || (type == "none" && bare > 1.0f)) {
    if (factor != 1.0f) scaling = linear_scaling(config.head_dim, factor);
  } else if (type != "none") {
    gguf.fail(key + "type", "none, linear or yarn", printable(type));
  }
  config.block.rope_factors = std::move(scaling.factors);
  config.block.rope_magnitude = scaling.magnitude;
}

void import_window(const GgufFile& gguf, const std::string& prefix,
                   const Architecture& architecture, ModelConfig& config) {
  const std::string key = prefix + "attention.sliding_window";
  BlockOptions& block = config.block;
  block.window = gguf.integer(key).value_or(0);
  // Converters write a window that covers the whole context for models without one.
  if (block.window >= config.context) block.window = 0;
  if (block.window <= 0) {
    block.window = 0;
    return;
  }
  block.window_every = gguf.integer(key + "_pattern").value_or(architecture.window_every);
  block.rope_theta_local =
      gguf.real(prefix + "rope.freq_base_swa").value_or(architecture.rope_theta_local);
}

ModelConfig import_config(const GgufFile& gguf, const Architecture& architecture, int64_t vocab) {
  const std::string prefix = std::string(architecture.name) + ".";
  ModelConfig config;
  config.name = gguf.text("general.name").value_or("");
  config.layers = required(gguf, prefix + "block_count");
  config.dim = required(gguf, prefix + "embedding_length");
  config.ffn = required(gguf, prefix + "feed_forward_length");
  config.heads = required(gguf, prefix + "attention.head_count");
  config.kv_heads = gguf.integer(prefix + "attention.head_count_kv").value_or(config.heads);
  config.context = required(gguf, prefix + "context_length");
  const auto key_length = gguf.integer(prefix + "attention.key_length");
  if (key_length) {
    config.head_dim = *key_length;
  } else {
    if (config.heads < 1 || config.dim % config.heads != 0)
      gguf.fail(prefix + "attention.head_count",
                "a divisor of embedding_length " + std::to_string(config.dim),
                std::to_string(config.heads));
    config.head_dim = config.dim / config.heads;
  }
  config.rope_theta = gguf.real(prefix + "rope.freq_base").value_or(10000.0f);
  const auto eps = gguf.real(prefix + "attention.layer_norm_rms_epsilon");
  if (!eps) gguf.fail(prefix + "attention.layer_norm_rms_epsilon", "a number", "nothing");
  config.norm_eps = *eps;
  config.vocab = vocab;
  const auto declared = gguf.integer(prefix + "vocab_size");
  if (declared && *declared != vocab)
    gguf.fail(prefix + "vocab_size", std::to_string(vocab) + " (tokens in the vocabulary)",
              std::to_string(*declared));
  apply(architecture, config);
  validate(config, gguf.file());
  import_rope_scaling(gguf, prefix, config);
  import_window(gguf, prefix, architecture, config);
  validate(config, gguf.file());
  refuse_unsupported(gguf, prefix, config);
  return config;
}

// The divisors of the frequencies that Llama 3 files carry as a tensor.
void read_rope_factors(const GgufTensor& tensor, const std::string& file, ModelConfig& config) {
  if (tensor.type->name != "F32" || tensor.shape != std::vector<int64_t>{config.head_dim / 2})
    throw FormatError("invalid tensor 'rope_freqs.weight' (" + file + ": expected F32 [" +
                      std::to_string(config.head_dim / 2) + "], found " +
                      std::string(tensor.type->name) + " " + shape_text(tensor.shape) + ")");
  std::vector<float>& factors = config.block.rope_factors;
  factors.resize(static_cast<std::size_t>(config.head_dim / 2));
  tensor.type->dequantize(tensor.data.data(), config.head_dim / 2, factors.data());
  validate(config, file);
}

// The file's tensor behind ours, with the shape it must have.
SourceTensor match_tensor(const GgufTensor& tensor, const TensorInfo& info, int64_t first_row,
                          const std::string& file, const ModelConfig& config,
                          const Architecture& architecture) {
  std::vector<int64_t> shape = info.shape;
  const int64_t fused = fused_rows(info, architecture, config);
  if (fused != 0) shape[0] = fused;
  if (tensor.shape != shape)
    throw FormatError("invalid shape of tensor '" + tensor.name + "' (" + file + ": expected " +
                      shape_text(shape) + ", found " + shape_text(tensor.shape) + ")");
  const int64_t permuted = architecture.half_split && is_rotary(info) ? config.head_dim : 0;
  if (permuted != 0 && info.shape.size() == 1 && tensor.type->values != 1)
    throw FormatError("invalid type of tensor '" + tensor.name + "' (" + file +
                      ": expected F32, F16 or BF16, found " + std::string(tensor.type->name) + ")");
  return {&tensor, permuted, first_row};
}

// Our tensors and the file's are the same set with the same shapes.
void match_tensors(Import& import, ModelConfig& config, const Architecture& architecture) {
  const std::string& file = import.gguf.file();
  std::map<std::string_view, const GgufTensor*> found;
  for (const GgufTensor& tensor : import.gguf.tensors()) found.emplace(tensor.name, &tensor);
  if (const auto factors = found.find("rope_freqs.weight"); factors != found.end()) {
    read_rope_factors(*factors->second, file, config);
    found.erase(factors);
  }
  std::set<std::string> used;
  for (const TensorInfo& info : tensor_table(config)) {
    const ForeignPlace place = gguf_place(info, architecture, config);
    const auto match = found.find(place.name);
    if (match == found.end())
      throw FormatError("missing tensor (" + file + ": expected '" + place.name + "' " +
                        shape_text(info.shape) + ", found nothing)");
    import.tensors.emplace(
        info.name, match_tensor(*match->second, info, place.first_row, file, config, architecture));
    used.insert(place.name);
  }
  for (const auto& [name, tensor] : found)
    if (!used.contains(std::string(name)))
      throw FormatError("unexpected tensor (" + file + ": expected the tensors of a " +
                        config.architecture + " model, found " + printable(name) + ")");
}

void read_tensor(const Import& import, std::string_view name, std::span<float> out) {
  const auto found = import.tensors.find(name);
  if (found == import.tensors.end())
    throw FormatError("unknown tensor (" + import.gguf.file() +
                      ": expected a tensor of the model, found " + printable(name) + ")");
  const GgufTensor& tensor = *found->second.tensor;
  const BlockType& type = *tensor.type;
  const bool is_matrix = tensor.shape.size() == 2;
  // A bias that may have to be permuted is a column of one-value rows (match_tensors() saw to plain
  // floats).
  const bool by_element = !is_matrix && type.values == 1;
  const int64_t K = is_matrix ? tensor.shape[1] : by_element ? 1 : tensor.shape[0];
  const int64_t N = static_cast<int64_t>(out.size()) / K;
  const int64_t blocks = K / type.values;
  const int64_t first = found->second.first_row;
  if ((first + N) * blocks * type.bytes > static_cast<int64_t>(tensor.data.size()) ||
      N * K != static_cast<int64_t>(out.size()))
    throw Error(ExitCode::kInternal,
                "read of tensor " + std::string(name) + " into a span of another size");
  for (int64_t n = 0; n < N; ++n) {
    const int64_t row = first + half_split_row(n, found->second.half_split_heads);
    const auto values = out.subspan(static_cast<std::size_t>(n * K), static_cast<std::size_t>(K));
    type.dequantize(tensor.data.data() + row * blocks * type.bytes, blocks, values.data());
    require_finite(values, name, n, import.gguf.file());
  }
}

// How the largest part of the weights was stored.
std::string describe(const GgufFile& gguf) {
  std::map<std::string_view, uint64_t> bytes;
  for (const GgufTensor& tensor : gguf.tensors()) bytes[tensor.type->name] += tensor.data.size();
  const auto largest = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const std::string name(largest->first);
  return find_block_type(0)->name == name || name == "F16" || name == "BF16"
             ? name
             : "dequantized " + name;
}

}  // namespace

SourceModel import_gguf(MappedFile file) {
  const auto import = std::make_shared<Import>(std::move(file));
  const GgufFile& gguf = import->gguf;
  const Architecture& architecture = architecture_of(gguf);
  SourceModel model;
  model.vocab = import_vocab(gguf);
  model.config = import_config(gguf, architecture, static_cast<int64_t>(model.vocab.tokens.size()));
  const auto& tensors = gguf.tensors();
  model.config.tied_head = std::none_of(tensors.begin(), tensors.end(), [](const GgufTensor& t) {
    return t.name == "output.weight";
  });
  match_tensors(*import, model.config, architecture);
  model.chat_template = gguf.text("tokenizer.chat_template").value_or("");
  model.license = gguf.text("general.license").value_or("");
  model.description = describe(gguf);
  model.file_bytes = import->mapping.bytes().size();
  model.hash = content_hash(import->mapping.bytes());
  model.read = [data = import.get()](std::string_view name, std::span<float> out) {
    read_tensor(*data, name, out);
  };
  model.storage = import;
  return model;
}

}  // namespace crumb::models
