#include "quant/train/cuda/generate.h"

#include <chrono>
#include <future>
#include <unordered_set>

#include "models/errors.h"
#include "models/file_writer.h"
#include "quant/train/cuda/decode.h"
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
  Decoder(const models::SourceModel& source, int64_t B, int64_t T, int tune)
      : config_(source.config),
        model_(source),
        size_{B, T, config_.heads, config_.kv_heads},
        gemm_(stream_.get(), tune),
        cache_(2 * config_.layers * B * config_.kv_heads * T * 64),
        x_(B * config_.dim),
        logits_(B * config_.vocab),
        normed_(B * config_.dim),
        qkv_(B * (config_.heads + 2 * config_.kv_heads) * 64),
        o_(B * config_.heads * 64),
        gate_up_(B * 2 * config_.ffn),
        down_in_(B * config_.ffn) {
    const RopeAngles angles = rope_angles(config_, T);
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

void require_lawful(const models::SourceModel& model, const TextScript& script, int64_t batch,
                    int64_t length) {
  if (model.config.head_dim != 64)
    throw Error(ExitCode::kUsage, "generation on the GPU (head_dim: expected 64, found " +
                                      std::to_string(model.config.head_dim) + ")");
  if (batch < 1 || length < 2)
    throw Error(ExitCode::kUsage, "generation (expected batch >= 1, length >= 2)");
  require_prefixes_fit(script, length);
}

}  // namespace

struct RowWriter::State {
  Decoder decoder;
  Lists prefixes, headers;
  Script script;
  Sampling sampling;
  int64_t B, T, V;
  DeviceArray<RowState> rows;
  DeviceArray<int32_t> tokens, current;

  State(const models::SourceModel& model, const TextScript& text, const Sampling& how,
        int64_t batch, int64_t length, int tune)
      : decoder(model, batch, length, tune),
        prefixes(text.prefixes),
        headers(text.headers),
        script{prefixes.values.data(),
               prefixes.begin.data(),
               static_cast<int32_t>(text.prefixes.size()),
               headers.values.data(),
               headers.begin.data(),
               static_cast<int32_t>(text.headers.size()),
               text.end},
        sampling(how),
        B(batch),
        T(length),
        V(model.config.vocab),
        rows(batch),
        tokens(batch * length),
        current(batch) {}
};

RowWriter::RowWriter(const models::SourceModel& model, const TextScript& script,
                     const Sampling& sampling, int64_t batch, int64_t length, int tune) {
  require_lawful(model, script, batch, length);
  state_ = std::make_unique<State>(model, script, sampling, batch, length, tune);
}
RowWriter::~RowWriter() = default;

std::vector<int32_t> RowWriter::write(int64_t first_row) {
  State& s = *state_;
  start_rows(s.script, s.sampling, first_row, s.B, s.T, s.rows.data(), s.tokens.data(),
             s.current.data(), s.decoder.stream());
  for (int64_t t = 0; t + 1 < s.T; ++t) {
    s.decoder.step(s.current.data(), t);
    next_tokens(s.script, s.sampling, s.decoder.logits(), s.V, first_row, s.B, s.T, t,
                s.rows.data(), s.tokens.data(), s.current.data(), s.decoder.stream());
  }
  return s.tokens.to_host();
}

WriteRows make_row_writers(const models::SourceModel& model, const TextScript& script,
                           const Sampling& sampling, int64_t batch, int64_t length, int gpus) {
  auto writers = std::make_shared<std::vector<std::unique_ptr<RowWriter>>>();
  for (int gpu = 0; gpu < gpus; ++gpu) {
    require(cudaSetDevice(gpu), "cudaSetDevice");
    writers->push_back(std::make_unique<RowWriter>(model, script, sampling, batch, length, 0));
  }
  require(cudaSetDevice(0), "cudaSetDevice");
  return [writers, batch, length](int64_t first, int64_t rows) {
    std::vector<int32_t> ids;
    while (std::ssize(ids) < rows * length) {
      std::vector<std::future<std::vector<int32_t>>> running;
      for (std::size_t i = 0; i < writers->size(); ++i)
        running.push_back(std::async(std::launch::async, [&, i] {
          require(cudaSetDevice(static_cast<int>(i)), "cudaSetDevice");
          return (*writers)[i]->write(first + std::ssize(ids) / length +
                                      static_cast<int64_t>(i) * batch);
        }));
      std::vector<int32_t> round;
      for (auto& one : running) {
        const auto part = one.get();
        round.insert(round.end(), part.begin(), part.end());
      }
      ids.insert(ids.end(), round.begin(), round.end());
    }
    ids.resize(static_cast<std::size_t>(rows * length));
    return ids;
  };
}

GenerateReport generate(const models::SourceModel& model, const TextScript& script,
                        const GenerateOptions& o, const std::string& path,
                        const std::function<void(int64_t rows, double speed)>& progress) {
  if (o.rows < 1 || model.config.vocab > 65536)
    throw Error(ExitCode::kUsage, "generation (expected rows >= 1, ids of two bytes)");
  RowWriter writer(model, script, o.sampling, o.batch, o.length, o.tune);
  models::FileWriter file(path);
  std::unordered_set<std::string> seen;
  GenerateReport report;
  const double begin = now();
  for (int64_t done = 0; done < o.rows; done += o.batch) {
    const std::vector<int32_t> ids = writer.write(o.first_row + done);
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
