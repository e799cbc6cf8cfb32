#include "quant/train/cuda/generate.h"

#include <chrono>
#include <unordered_set>

#include "models/errors.h"
#include "models/file_writer.h"
#include "models/json.h"
#include "quant/train/cuda/float_model.h"

namespace crumb::quant::train::cuda {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Lists one after the other, with their borders.
struct Lists {
  DeviceArray<int32_t> values, begin;
  explicit Lists(const std::vector<std::vector<int32_t>>& lists) {
    std::vector<int32_t> flat, borders = {0};
    for (const auto& list : lists) {
      flat.insert(flat.end(), list.begin(), list.end());
      borders.push_back(static_cast<int32_t>(flat.size()));
    }
    flat.push_back(0);  // never empty
    values = DeviceArray<int32_t>(std::span<const int32_t>(flat));
    begin = DeviceArray<int32_t>(std::span<const int32_t>(borders));
  }
};

// The model with its cache, one position at a time for B rows.
class Decoder {
 public:
  Decoder(const models::SourceModel& source, const GenerateOptions& o)
      : config_(source.config),
        model_(source),
        size_{o.batch, o.length, config_.heads, config_.kv_heads},
        gemm_(stream_.get(), o.tune),
        cache_(2 * config_.layers * o.batch * config_.kv_heads * o.length * 64),
        x_(o.batch * config_.dim),
        logits_(o.batch * config_.vocab),
        normed_(o.batch * config_.dim),
        qkv_(o.batch * (config_.heads + 2 * config_.kv_heads) * 64),
        o_(o.batch * config_.heads * 64),
        gate_up_(o.batch * 2 * config_.ffn),
        down_in_(o.batch * config_.ffn) {
    const RopeAngles angles = rope_angles(config_, o.length);
    cos_ = DeviceArray<float>(std::span<const float>(angles.cos));
    sin_ = DeviceArray<float>(std::span<const float>(angles.sin));
  }

  cudaStream_t stream() const { return stream_.get(); }
  const float* logits() const { return logits_.data(); }

  // Logits of the tokens ids [B] at position t, after all positions before.
  void step(const int32_t* ids, int64_t t) {
    const int64_t B = size_.B, D = config_.dim, F = config_.ffn;
    const int64_t q = config_.heads * 64, width = q + 2 * config_.kv_heads * 64;
    const int64_t layer_cache = B * config_.kv_heads * size_.T * 64;
    const float eps = config_.norm_eps;
    const cudaStream_t s = stream_.get();
    const Weights& w = model_.weights();
    embed(ids, w.embedding, B, D, x_.data(), s);
    bf16* cache = cache_.data();
    for (const LayerWeights& layer : w.layers) {
      rmsnorm(x_.data(), layer.attn_norm, eps, B, D, normed_.data(), s);
      gemm_.forward(normed_.data(), layer.matrix[0], B, width, D, qkv_.data());
      if (layer.bias != nullptr) add_bias(layer.bias, B, width, qkv_.data(), s);
      rope(qkv_.data(), B, 1, width, config_.heads + config_.kv_heads, 64, cos_.data() + 32 * t,
           sin_.data() + 32 * t, s);
      decode_attention(size_, qkv_.data(), t, cache, cache + layer_cache, o_.data(), s);
      cache += 2 * layer_cache;
      gemm_.forward_add(o_.data(), layer.matrix[1], B, D, q, x_.data(), x_.data());
      rmsnorm(x_.data(), layer.mlp_norm, eps, B, D, normed_.data(), s);
      gemm_.forward(normed_.data(), layer.matrix[2], B, 2 * F, D, gate_up_.data());
      silu_mul(gate_up_.data(), B, F, down_in_.data(), s);
      gemm_.forward_add(down_in_.data(), layer.matrix[3], B, D, F, x_.data(), x_.data());
    }
    rmsnorm(x_.data(), w.final_norm, eps, B, D, normed_.data(), s);
    gemm_.forward(normed_.data(), w.head, B, config_.vocab, D, logits_.data());
  }

 private:
  models::ModelConfig config_;
  Stream stream_;
  FloatModel model_;
  CacheSize size_;
  Gemm gemm_;
  DeviceArray<bf16> cache_;  // [L, 2, B, Hk, T, 64]
  DeviceArray<float> x_, logits_, cos_, sin_;
  DeviceArray<bf16> normed_, qkv_, o_, gate_up_, down_in_;
};

void require_lawful(const models::SourceModel& model, const TextScript& script,
                    const GenerateOptions& o) {
  if (model.config.head_dim != 64)
    throw Error(ExitCode::kUsage, "generation on the GPU (head_dim: expected 64, found " +
                                      std::to_string(model.config.head_dim) + ")");
  if (o.rows < 1 || o.batch < 1 || o.length < 2 || model.config.vocab > 65536)
    throw Error(ExitCode::kUsage,
                "generation (expected rows, batch >= 1, length >= 2, ids of two bytes)");
  for (const auto& prefix : script.prefixes)
    if (std::ssize(prefix) > o.length)
      throw Error(ExitCode::kUsage, "prefix longer than a row (expected at most " +
                                        std::to_string(o.length) + " tokens, found " +
                                        std::to_string(prefix.size()) + ")");
}

}  // namespace

TextScript script_from_json(const std::string& text, int64_t V) {
  TextScript script;
  try {
    const auto json = nlohmann::json::parse(text);
    json.at("prefixes").get_to(script.prefixes);
    script.headers = json.value("headers", script.headers);
    script.end = json.value("end", script.end);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::kUsage, std::string("generation script (") + error.what() + ")");
  }
  if (script.prefixes.empty())
    throw Error(ExitCode::kUsage, "generation script (prefixes: expected one or more, found none)");
  for (const auto* lists : {&script.prefixes, &script.headers})
    for (const auto& list : *lists) {
      if (list.empty()) throw Error(ExitCode::kUsage, "generation script (found an empty list)");
      for (const int32_t id : list)
        if (id < 0 || id >= V)
          throw Error(ExitCode::kUsage, "generation script (token id: expected less than " +
                                            std::to_string(V) + ", found " + std::to_string(id) +
                                            ")");
    }
  return script;
}

GenerateReport generate(const models::SourceModel& model, const TextScript& text,
                        const GenerateOptions& o, const std::string& path,
                        const std::function<void(int64_t rows, double speed)>& progress) {
  require_lawful(model, text, o);
  Decoder decoder(model, o);
  const Lists prefixes(text.prefixes), headers(text.headers);
  const Script script{prefixes.values.data(),
                      prefixes.begin.data(),
                      static_cast<int32_t>(text.prefixes.size()),
                      headers.values.data(),
                      headers.begin.data(),
                      static_cast<int32_t>(text.headers.size()),
                      text.end};
  DeviceArray<RowState> state(o.batch);
  DeviceArray<int32_t> tokens(o.batch * o.length), current(o.batch);
  models::FileWriter file(path);
  std::unordered_set<std::string> seen;
  GenerateReport report;
  const double begin = now();
  for (int64_t done = 0; done < o.rows; done += o.batch) {
    const int64_t first = o.first_row + done;
    start_rows(script, o.sampling, first, o.batch, o.length, state.data(), tokens.data(),
               current.data(), decoder.stream());
    for (int64_t t = 0; t + 1 < o.length; ++t) {
      decoder.step(current.data(), t);
      next_tokens(script, o.sampling, decoder.logits(), model.config.vocab, first, o.batch,
                  o.length, t, state.data(), tokens.data(), current.data(), decoder.stream());
    }
    const std::vector<int32_t> ids = tokens.to_host();
    for (int64_t b = 0; b < o.batch; ++b) {
      std::string row;
      for (int64_t t = 0; t < o.length; ++t) {
        const int32_t id = ids[static_cast<std::size_t>(b * o.length + t)];
        row += static_cast<char>(id & 255);
        row += static_cast<char>(id >> 8);
      }
      if (!seen.insert(row).second) {
        ++report.duplicates;
        continue;
      }
      file.write(row);
      ++report.rows;
    }
    report.seconds = now() - begin;
    if (progress)
      progress(done + o.batch, static_cast<double>((done + o.batch) * o.length) / report.seconds);
  }
  file.commit();
  return report;
}

}  // namespace crumb::quant::train::cuda
