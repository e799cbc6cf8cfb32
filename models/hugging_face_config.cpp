#include "models/hugging_face_config.h"

#include <cmath>

#include "models/errors.h"
#include "models/json_text.h"
#include "models/rope_scaling.h"
#include "models/text.h"

namespace crumb::models {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxConfigBytes = 4 << 20;
constexpr int64_t kMost = 1 << 24;  // of any integer; validate() has the ranges

class Reader {
 public:
  Reader(const std::string& text, const std::string& file)
      : place_{file, "config.json"}, root_(parse_json_object(text, place_, kMaxConfigBytes)) {}

  HuggingFaceConfig read() {
    HuggingFaceConfig out;
    out.architecture = &architecture();
    ModelConfig& config = out.config;
    config.layers = integer("num_hidden_layers");
    config.dim = integer("hidden_size");
    config.ffn = integer("intermediate_size");
    config.heads = integer("num_attention_heads");
    config.kv_heads = integer("num_key_value_heads", config.heads);
    config.head_dim = integer("head_dim", config.heads > 0 ? config.dim / config.heads : 0);
    config.vocab = integer("vocab_size");
    config.context = integer("max_position_embeddings", 2048);
    config.norm_eps = real(root_, "rms_norm_eps", 1e-6f);
    const json* full = rope_of("full_attention");
    config.rope_theta = full != nullptr && full->contains("rope_theta")
                            ? real(*full, "rope_theta", 10000.0f)
                            : real(root_, "rope_theta", 10000.0f);
    config.tied_head = flag("tie_word_embeddings", out.architecture->scaled_embedding);
    apply(*out.architecture, config);
    validate(config, place_.file);
    read_block(*out.architecture, config);
    if (full != nullptr) read_scaling(*full, config);
    refuse_unsupported(*out.architecture, config);
    validate(config, place_.file);
    read_eos(out.eos);
    return out;
  }

 private:
  const Architecture& architecture() {
    const auto list = root_.find("architectures");
    std::string name;
    if (list != root_.end() && list->is_array() && !list->empty() && (*list)[0].is_string())
      name = (*list)[0].get<std::string>();
    const Architecture* found = find_architecture_class(name);
    if (found == nullptr)
      json_fail(place_, "architectures", "the class of one of " + architecture_names(),
                name.empty() ? "nothing" : printable(name));
    return *found;
  }

  static bool present(const json& object, const char* field) {
    const auto found = object.find(field);
    return found != object.end() && !found->is_null();
  }
  int64_t integer(const char* field) { return json_int(root_, field, 0, kMost, place_); }
  int64_t integer(const char* field, int64_t otherwise) {
    return present(root_, field) ? integer(field) : otherwise;
  }
  float real(const json& object, const char* field, float otherwise) {
    return present(object, field) ? json_float(object, field, place_) : otherwise;
  }
  bool flag(const char* field, bool otherwise) {
    return present(root_, field) ? json_bool(root_, field, place_) : otherwise;
  }

  // RoPE's parameters: newer files have "rope_parameters", of one kind or by kind of layer; older
  // ones "rope_scaling".
  const json* rope_of(const char* layers) {
    for (const char* field : {"rope_parameters", "rope_scaling"}) {
      if (!present(root_, field)) continue;
      const json& value = root_[field];
      if (!value.is_object()) json_fail(place_, field, "an object", value.type_name());
      const auto inner = value.find(layers);
      if (inner != value.end() && inner->is_object()) return &*inner;
      return value.contains("full_attention") ? nullptr : &value;
    }
    return nullptr;
  }

  void read_block(const Architecture& row, ModelConfig& config) {
    BlockOptions& block = config.block;
    if (present(root_, "query_pre_attn_scalar")) {
      const float scalar = real(root_, "query_pre_attn_scalar", 0);
      if (!(scalar > 0)) json_fail(place_, "query_pre_attn_scalar", "above 0", "another");
      if (scalar != static_cast<float>(config.head_dim))
        block.attention_scale = 1 / std::sqrt(scalar);
    }
    const bool windows =
        row.name == "qwen2" || row.name == "qwen3" ? flag("use_sliding_window", false) : true;
    block.window = windows ? integer("sliding_window", 0) : 0;
    if (block.window >= config.context) block.window = 0;
    if (block.window == 0) return;
    block.window_every = integer("sliding_window_pattern", row.window_every);
    read_layer_types(config);
    if (row.rope_theta_local == 0) return;
    const json* local = rope_of("sliding_attention");
    block.rope_theta_local = real(root_, "rope_local_base_freq", row.rope_theta_local);
    if (local != nullptr && local != rope_of("full_attention"))
      block.rope_theta_local = real(*local, "rope_theta", block.rope_theta_local);
  }

  // Every n-th layer sees all, or the file cannot be told by one number.
  void read_layer_types(ModelConfig& config) {
    if (!present(root_, "layer_types")) return;
    const json& types = root_["layer_types"];
    if (!types.is_array() || std::ssize(types) != config.layers)
      json_fail(place_, "layer_types", std::to_string(config.layers) + " kinds", "another value");
    const auto is_full = [&](int64_t layer) {
      const json& type = types[static_cast<std::size_t>(layer)];
      if (type != "full_attention" && type != "sliding_attention")
        json_fail(place_, "layer_types", "full_attention or sliding_attention",
                  printable(json_dump(type)));
      return type == "full_attention";
    };
    int64_t every = 0;
    for (int64_t layer = 0; layer < config.layers && every == 0; ++layer)
      if (is_full(layer)) every = layer + 1;
    config.block.window_every = every;
    for (int64_t layer = 0; layer < config.layers; ++layer)
      if (is_full(layer) != (window_of(config, layer) == 0))
        json_fail(place_, "layer_types", "full attention in every n-th layer", "another order");
  }

  void read_scaling(const json& rope, ModelConfig& config) {
    std::string type = "default";
    for (const char* field : {"rope_type", "type"})
      if (present(rope, field)) {
        type = json_string(rope, field, place_);
        break;
      }
    if (type == "default") return;
    const float factor = json_float(rope, "factor", place_);
    if (!(factor >= 1 && factor <= 1e4f))
      json_fail(place_, "rope factor", "1..10000", std::to_string(factor));
    const auto original = static_cast<double>(
        real(rope, "original_max_position_embeddings", static_cast<float>(config.context)));
    if (!(original >= 1))
      json_fail(place_, "original_max_position_embeddings", "at least 1", "less");
    RopeScaling scaling;
    if (type == "linear") {
      scaling = linear_scaling(config.head_dim, factor);
    } else if (type == "llama3") {
      const float low = real(rope, "low_freq_factor", 1), high = real(rope, "high_freq_factor", 4);
      if (!(low > 0 && high > low))
        json_fail(place_, "high_freq_factor", "more than low_freq_factor", std::to_string(high));
      scaling = llama3_scaling(config.head_dim, config.rope_theta, factor, low, high, original);
    } else if (type == "yarn") {
      Yarn yarn{config.rope_theta, factor, original};
      yarn.beta_fast = real(rope, "beta_fast", 32);
      yarn.beta_slow = real(rope, "beta_slow", 1);
      yarn.attention_factor = real(rope, "attention_factor", 0);
      if (!(yarn.beta_fast >= yarn.beta_slow && yarn.beta_slow > 0))
        json_fail(place_, "beta_slow", "above 0, at most beta_fast", "another number");
      for (const char* field : {"mscale", "mscale_all_dim", "truncate"})
        if (present(rope, field))
          json_fail(place_, field, "none (not supported)", json_dump(rope[field]));
      scaling = yarn_scaling(config.head_dim, yarn);
    } else {
      json_fail(place_, "rope_scaling", "default, linear, llama3 or yarn", printable(type));
    }
    config.block.rope_factors = std::move(scaling.factors);
    config.block.rope_magnitude = scaling.magnitude;
  }

  void refuse_unsupported(const Architecture& row, const ModelConfig& config) {
    const char* wanted =
        config.block.activation == Activation::kSilu ? "silu" : "gelu_pytorch_tanh";
    for (const char* field : {"hidden_act", "hidden_activation"})
      if (present(root_, field) && root_[field] != wanted)
        json_fail(place_, field, wanted, printable(json_dump(root_[field])));
    for (const char* field : {"attention_bias", "mlp_bias", "use_bidirectional_attention"})
      if (present(root_, field) && root_[field] != false && !row.qkv_bias)
        json_fail(place_, field, "false (not supported)", json_dump(root_[field]));
    for (const char* field : {"final_logit_softcapping", "attn_logit_softcapping"})
      if (present(root_, field))
        json_fail(place_, field, "null (not supported)", json_dump(root_[field]));
    if (real(root_, "partial_rotary_factor", 1) != 1)
      json_fail(place_, "partial_rotary_factor", "1 (partial RoPE is not supported)", "another");
    if (present(root_, "quantization_config"))
      json_fail(place_, "quantization_config", "none (weights in F32, F16 or BF16)", "one");
  }

  void read_eos(std::vector<int64_t>& eos) {
    const auto found = root_.find("eos_token_id");
    if (found == root_.end()) return;
    for (const json& id : found->is_array() ? *found : json::array({*found}))
      if (id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(kMost))
        eos.push_back(id.get<int64_t>());
  }

  JsonPlace place_;
  const json root_;
};

}  // namespace

HuggingFaceConfig read_hugging_face_config(const std::string& text, const std::string& file) {
  return Reader(text, file).read();
}

}  // namespace crumb::models
