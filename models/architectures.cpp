#include "models/architectures.h"

#include <cmath>

#include "models/errors.h"

namespace crumb::models {
namespace {

constexpr Architecture kArchitectures[] = {
    {.name = "gemma3",
     .class_name = "Gemma3ForCausalLM",
     .qk_norm = true,
     .post_norms = true,
     .activation = Activation::kGeluTanh,
     .scaled_embedding = true,
     .window_every = 6,
     .rope_theta_local = 10000.0f,
     .norm_plus_one = true},
    {.name = "llama",
     .class_name = "LlamaForCausalLM",
     .class_alias = "MistralForCausalLM",
     .half_split = false},
    {.name = "phi3", .class_name = "Phi3ForCausalLM", .fused = true},
    {.name = "qwen2", .class_name = "Qwen2ForCausalLM", .qkv_bias = true},
    {.name = "qwen3", .class_name = "Qwen3ForCausalLM", .qk_norm = true},
};

// Ours, GGUF's, and Hugging Face's where that is not ours.
struct Names {
  std::string_view ours, gguf;
};
constexpr Names kModelNames[] = {
    {"model.embed_tokens", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head", "output.weight"},
};
constexpr Names kLayerNames[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj", "attn_q.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj", "attn_k.weight"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj", "attn_v.weight"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"self_attn.o_proj", "attn_output.weight"},
    {"attention_output_layernorm.weight", "post_attention_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj", "ffn_gate.weight"},
    {"mlp.up_proj", "ffn_up.weight"},
    {"mlp.down_proj", "ffn_down.weight"},
    {"mlp_output_layernorm.weight", "post_ffw_norm.weight"},
};

// What Hugging Face calls otherwise where a block has norms behind its parts as well.
constexpr Names kPostNormNames[] = {
    {"attention_output_layernorm.weight", "post_attention_layernorm.weight"},
    {"post_attention_layernorm.weight", "pre_feedforward_layernorm.weight"},
    {"mlp_output_layernorm.weight", "post_feedforward_layernorm.weight"},
};

// Parts of fused matrices, in their order.
struct Fused {
  std::string_view ours, gguf, hugging_face;
};
constexpr Fused kFused[] = {
    {"self_attn.q_proj", "attn_qkv.weight", "self_attn.qkv_proj.weight"},
    {"self_attn.k_proj", "attn_qkv.weight", "self_attn.qkv_proj.weight"},
    {"self_attn.v_proj", "attn_qkv.weight", "self_attn.qkv_proj.weight"},
    {"mlp.gate_proj", "ffn_up.weight", "mlp.gate_up_proj.weight"},
    {"mlp.up_proj", "ffn_up.weight", "mlp.gate_up_proj.weight"},
};

int64_t rows_of(std::string_view suffix, const ModelConfig& config) {
  if (suffix == "self_attn.q_proj") return config.heads * config.head_dim;
  return suffix.starts_with("self_attn") ? config.kv_heads * config.head_dim : config.ffn;
}

std::string_view suffix_of(const TensorInfo& tensor) {
  return std::string_view(tensor.name).substr(layer_tensor(tensor.layer, "").size());
}

// The row of kFused that is this tensor, or nullptr.
const Fused* find_fused(const TensorInfo& tensor, const Architecture& architecture) {
  if (!architecture.fused || tensor.layer < 0) return nullptr;
  for (const Fused& part : kFused)
    if (part.ours == suffix_of(tensor)) return &part;
  return nullptr;
}

int64_t rows_before(const Fused& part, const ModelConfig& config) {
  int64_t rows = 0;
  for (const Fused* other = &part; other != kFused && (other - 1)->gguf == part.gguf; --other)
    rows += rows_of((other - 1)->ours, config);
  return rows;
}

}  // namespace

const Architecture* find_architecture(std::string_view name) {
  for (const Architecture& row : kArchitectures)
    if (row.name == name) return &row;
  return nullptr;
}

const Architecture* find_architecture_class(std::string_view class_name) {
  for (const Architecture& row : kArchitectures)
    if (!class_name.empty() && (row.class_name == class_name || row.class_alias == class_name))
      return &row;
  return nullptr;
}

std::string architecture_names() {
  std::string names;
  for (const Architecture& row : kArchitectures)
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

void apply(const Architecture& row, ModelConfig& config) {
  config.architecture = row.name;
  config.qkv_bias = row.qkv_bias;
  config.block.qk_norm = row.qk_norm;
  config.block.post_norms = row.post_norms;
  config.block.activation = row.activation;
  if (row.scaled_embedding)
    config.block.embedding_scale = std::sqrt(static_cast<float>(config.dim));
}

ForeignPlace gguf_place(const TensorInfo& tensor, const Architecture& architecture,
                        const ModelConfig& config) {
  if (tensor.layer < 0) {
    for (const Names& pair : kModelNames)
      if (pair.ours == tensor.name) return {std::string(pair.gguf)};
  } else {
    const std::string prefix = "blk." + std::to_string(tensor.layer) + ".";
    if (const Fused* part = find_fused(tensor, architecture))
      return {prefix + std::string(part->gguf), rows_before(*part, config)};
    for (const Names& pair : kLayerNames)
      if (pair.ours == suffix_of(tensor)) return {prefix + std::string(pair.gguf)};
  }
  throw Error(ExitCode::kInternal, "tensor " + tensor.name + " has no name in GGUF");
}

ForeignPlace hugging_face_place(const TensorInfo& tensor, const Architecture& architecture,
                                const ModelConfig& config) {
  const std::string prefix = tensor.layer < 0 ? "" : layer_tensor(tensor.layer, "");
  if (const Fused* part = find_fused(tensor, architecture))
    return {prefix + std::string(part->hugging_face), rows_before(*part, config)};
  if (architecture.post_norms && tensor.layer >= 0) {
    for (const Names& pair : kPostNormNames)
      if (pair.ours == suffix_of(tensor)) return {prefix + std::string(pair.gguf)};
  }
  return {may_be_quantized(tensor.role) ? tensor.name + ".weight" : tensor.name};
}

int64_t fused_rows(const TensorInfo& tensor, const Architecture& architecture,
                   const ModelConfig& config) {
  const Fused* part = find_fused(tensor, architecture);
  if (part == nullptr) return 0;
  int64_t rows = 0;
  for (const Fused& other : kFused)
    if (other.gguf == part->gguf) rows += rows_of(other.ours, config);
  return rows;
}

bool is_rotary(const TensorInfo& tensor) {
  for (const char* part : {"q_proj", "k_proj", "q_norm", "k_norm"})
    if (tensor.name.find(part) != std::string::npos) return true;
  return false;
}

int64_t half_split_row(int64_t n, int64_t head_dim) {
  if (head_dim == 0) return n;
  const int64_t in_head = n % head_dim;
  return n - in_head + in_head / 2 + in_head % 2 * (head_dim / 2);
}

}  // namespace crumb::models
