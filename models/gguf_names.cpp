#include "models/gguf_names.h"

#include "models/errors.h"

namespace crumb::models {
namespace {

constexpr GgufArchitecture kArchitectures[] = {{"llama", false, false}, {"qwen2", true, true}};

struct NamePair {
  std::string_view ours, gguf;
};
constexpr NamePair kModelNames[] = {
    {"model.embed_tokens", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head", "output.weight"},
};
constexpr NamePair kLayerNames[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj", "attn_q.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj", "attn_k.weight"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj", "attn_v.weight"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj", "attn_output.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj", "ffn_gate.weight"},
    {"mlp.up_proj", "ffn_up.weight"},
    {"mlp.down_proj", "ffn_down.weight"},
};

}  // namespace

const GgufArchitecture* find_gguf_architecture(std::string_view name) {
  for (const GgufArchitecture& architecture : kArchitectures)
    if (architecture.name == name) return &architecture;
  return nullptr;
}

std::string gguf_tensor_name(const TensorInfo& tensor) {
  if (tensor.layer < 0) {
    for (const NamePair& pair : kModelNames)
      if (pair.ours == tensor.name) return std::string(pair.gguf);
  }
  const std::size_t prefix = layer_tensor(tensor.layer, "").size();
  for (const NamePair& pair : kLayerNames)
    if (pair.ours == std::string_view(tensor.name).substr(prefix))
      return "blk." + std::to_string(tensor.layer) + "." + std::string(pair.gguf);
  throw Error(ExitCode::kInternal, "tensor " + tensor.name + " has no name in GGUF");
}

bool is_rotary(const TensorInfo& tensor) {
  return tensor.name.find("q_proj") != std::string::npos ||
         tensor.name.find("k_proj") != std::string::npos;
}

int64_t half_split_row(int64_t n, int64_t head_dim) {
  if (head_dim == 0) return n;
  const int64_t in_head = n % head_dim;
  return n - in_head + in_head / 2 + in_head % 2 * (head_dim / 2);
}

}  // namespace crumb::models
