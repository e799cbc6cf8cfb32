// GGUF metadata and tensors of the Llama family -> ours.
#include <algorithm>
#include <map>
#include <utility>

#include "models/errors.h"
#include "models/gguf_names.h"
#include "models/import.h"
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
};

// Everything behind SourceModel::read.
struct Import {
  MappedFile mapping;
  GgufFile gguf;
  std::map<std::string, SourceTensor, std::less<>> tensors;  // by our name

  explicit Import(MappedFile file)
      : mapping(std::move(file)), gguf(mapping.bytes(), mapping.path()) {}
};

const GgufArchitecture& architecture_of(const GgufFile& gguf) {
  const auto name = gguf.text("general.architecture");
  const GgufArchitecture* architecture = name ? find_gguf_architecture(*name) : nullptr;
  if (architecture == nullptr)
    gguf.fail("general.architecture", "llama or qwen2", name ? printable(*name) : "nothing");
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
  const auto scaling = gguf.text(prefix + "rope.scaling.type");
  if (scaling && *scaling != "none")
    gguf.fail(prefix + "rope.scaling.type", "none (RoPE scaling is not supported yet)",
              printable(*scaling));
  // Older converters wrote a bare factor; 0 and 1 mean none.
  const auto factor = gguf.real(prefix + "rope.scale_linear");
  if (factor && *factor != 0.0f && *factor != 1.0f)
    gguf.fail(prefix + "rope.scale_linear", "1 (RoPE scaling is not supported yet)",
              std::to_string(*factor));
  const auto expect = [&](const std::string& key, int64_t wanted, const char* why) {
    const auto value = gguf.integer(prefix + key);
    if (value && *value != wanted)
      gguf.fail(prefix + key, std::to_string(wanted) + " (" + why + ")", std::to_string(*value));
  };
  expect("expert_count", 0, "mixtures of experts are not supported");
  expect("attention.value_length", config.head_dim, "the length of a key");
  expect("rope.dimension_count", config.head_dim, "partial RoPE is not supported");
  const auto window = gguf.integer(prefix + "attention.sliding_window");
  if (window && *window > 0 && *window < config.context)
    gguf.fail(prefix + "attention.sliding_window",
              "at least the context length (not supported yet)", std::to_string(*window));
}

ModelConfig import_config(const GgufFile& gguf, const GgufArchitecture& architecture,
                          int64_t vocab) {
  const std::string prefix = std::string(architecture.name) + ".";
  ModelConfig config;
  config.architecture = architecture.name;
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
  config.qkv_bias = architecture.qkv_bias;
  validate(config, gguf.file());
  refuse_unsupported(gguf, prefix, config);
  return config;
}

// Our tensors and the file's are the same set with the same shapes.
void match_tensors(Import& import, const ModelConfig& config,
                   const GgufArchitecture& architecture) {
  const std::string& file = import.gguf.file();
  std::map<std::string_view, const GgufTensor*> found;
  for (const GgufTensor& tensor : import.gguf.tensors()) found.emplace(tensor.name, &tensor);
  if (found.contains("rope_freqs.weight"))
    throw FormatError(
        "unsupported tensor 'rope_freqs.weight' (" + file +
        ": expected plain RoPE, found per-frequency factors; RoPE scaling is not supported yet)");
  for (const TensorInfo& info : tensor_table(config)) {
    const std::string name = gguf_tensor_name(info);
    const auto match = found.find(name);
    if (match == found.end())
      throw FormatError("missing tensor (" + file + ": expected '" + name + "' " +
                        shape_text(info.shape) + ", found nothing)");
    if (match->second->shape != info.shape)
      throw FormatError("invalid shape of tensor '" + name + "' (" + file + ": expected " +
                        shape_text(info.shape) + ", found " + shape_text(match->second->shape) +
                        ")");
    const int64_t permuted = architecture.half_split && is_rotary(info) ? config.head_dim : 0;
    if (permuted != 0 && info.shape.size() == 1 && match->second->type->values != 1)
      throw FormatError("invalid type of tensor '" + name + "' (" + file +
                        ": expected F32, F16 or BF16, found " +
                        std::string(match->second->type->name) + ")");
    import.tensors.emplace(info.name, SourceTensor{match->second, permuted});
    found.erase(match);
  }
  if (!found.empty())
    throw FormatError("unexpected tensor (" + file + ": expected the tensors of a " +
                      config.architecture + " model, found " + printable(found.begin()->first) +
                      ")");
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
  if (N * blocks * type.bytes != static_cast<int64_t>(tensor.data.size()) ||
      N * K != static_cast<int64_t>(out.size()))
    throw Error(ExitCode::kInternal,
                "read of tensor " + std::string(name) + " into a span of another size");
  for (int64_t n = 0; n < N; ++n) {
    const int64_t row = half_split_row(n, found->second.half_split_heads);
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
  const GgufArchitecture& architecture = architecture_of(gguf);
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
