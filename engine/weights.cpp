#include "engine/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <string>

#include "models/errors.h"

namespace crumb {
namespace {

using models::layer_tensor;

int64_t code_bytes(const kernels::PackedMatrix& w) {
  return kernels::strip_count(w.rows) * kernels::strip_code_bytes(w.cols, w.bits);
}
int64_t scale_count(const kernels::PackedMatrix& w) {
  return kernels::strip_count(w.rows) * kernels::group_count(w.cols, w.group) * kernels::kStripRows;
}
int64_t packed_bytes(const Linear& w) {
  if (w.bands.empty()) return w.N * w.K * 4;
  int64_t bytes = 0;
  for (const kernels::PackedMatrix& band : w.bands)
    bytes += code_bytes(band) + scale_count(band) * (band.zeros != nullptr ? 3 : 2);
  return bytes;
}

// Where the parts of a model come from; filled for a checkpoint or for a source.
struct Binder {
  const models::ModelConfig& config;
  std::function<models::MatrixView(const std::string&)> matrix;
  std::function<std::span<const float>(const std::string&)> vector;
};

Linear to_linear(const models::MatrixView& view, int64_t N, int64_t K) {
  return {view.bands, view.f32, N, K};
}

// Activation groups: a float matrix takes floats; a rotated row scale one scale a token; everything
// else one scale per 32 or 64 columns, never wider than the weights' group (unrotated inputs have
// outliers that one scale a token would pay for). INT8 takes 32: its own error is so small that the
// input's would show, and it waits for memory anyway.
int64_t activation_group(const models::MatrixView& view, int64_t K) {
  if (view.bands.empty()) return 0;
  const int64_t token = kernels::padded_columns(K);
  const int64_t group = view.bands.front().group;
  if (group == K && view.rotation.hadamard > 0) return token;
  const bool eight = std::any_of(view.bands.begin(), view.bands.end(),
                                 [](const kernels::PackedMatrix& band) { return band.bits == 8; });
  return std::min<int64_t>(group == 32 || eight ? 32 : 64, token);
}

}  // namespace

Site shared_site(std::vector<std::vector<float>>& sign_store,
                 const std::vector<models::MatrixView>& views, int64_t K,
                 const std::string& where) {
  Site site;
  site.K = K;
  const models::Rotation rotation = views.front().rotation;
  for (const auto& view : views) {
    if (view.rotation != rotation || view.bands.empty() != views.front().bands.empty())
      throw FormatError("matrices that share an input differ in rotation or kind (" + where + ")");
    const int64_t group = activation_group(view, K);
    site.group = site.group == 0 ? group : std::min(site.group, group);
  }
  // Groups of 64 must not straddle the weights' groups of 32: the smallest one above decides for
  // all.
  if (site.group > 0) site.groups = kernels::group_count(kernels::padded_columns(K), site.group);
  if (rotation.hadamard > 0) {
    sign_store.push_back(models::rotation_signs(rotation, K));
    site.signs = sign_store.back();
    site.hadamard = rotation.hadamard;
  }
  return site;
}

namespace {

// Bits of all matrices' strips, for an even division of mixed ones.
StripWork strip_work(std::initializer_list<const Linear*> matrices) {
  const bool mixed = std::any_of(matrices.begin(), matrices.end(),
                                 [](const Linear* w) { return w->bands.size() > 1; });
  if (!mixed) return {};
  StripWork work(static_cast<std::size_t>(kernels::strip_count((*matrices.begin())->N) + 1));
  for (const Linear* w : matrices) {
    std::size_t strip = 0;
    int32_t before = 0;
    for (const models::Band& band : models::bands_of(w->bands))
      for (int64_t i = 0; i < band.strips; ++i) work[++strip] += before += band.bits;
  }
  return work;
}

struct LayerViews {
  models::MatrixView q, k, v, o, gate, up, down;
};

void bind_layer(Weights& weights, const Binder& from, int64_t index) {
  const models::ModelConfig c = models::layer_config(from.config, index);
  Layer& layer = weights.layers[static_cast<std::size_t>(index)];
  layer.heads = c.heads;
  layer.kv_heads = c.kv_heads;
  layer.ffn = c.ffn;
  const auto matrix = [&](const char* suffix) { return from.matrix(layer_tensor(index, suffix)); };
  const auto vector = [&](const char* suffix) { return from.vector(layer_tensor(index, suffix)); };
  const LayerViews views{matrix("self_attn.q_proj"), matrix("self_attn.k_proj"),
                         matrix("self_attn.v_proj"), matrix("self_attn.o_proj"),
                         matrix("mlp.gate_proj"),    matrix("mlp.up_proj"),
                         matrix("mlp.down_proj")};
  const int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  layer.q = to_linear(views.q, q_rows, c.dim);
  layer.k = to_linear(views.k, kv_rows, c.dim);
  layer.v = to_linear(views.v, kv_rows, c.dim);
  layer.o = to_linear(views.o, c.dim, q_rows);
  layer.gate = to_linear(views.gate, c.ffn, c.dim);
  layer.up = to_linear(views.up, c.ffn, c.dim);
  layer.down = to_linear(views.down, c.dim, c.ffn);
  layer.attn_norm = vector("input_layernorm.weight");
  layer.mlp_norm = vector("post_attention_layernorm.weight");
  if (c.qkv_bias) {
    layer.q_bias = vector("self_attn.q_proj.bias");
    layer.k_bias = vector("self_attn.k_proj.bias");
    layer.v_bias = vector("self_attn.v_proj.bias");
  }
  if (c.block.qk_norm) {
    layer.q_norm = vector("self_attn.q_norm.weight");
    layer.k_norm = vector("self_attn.k_norm.weight");
  }
  if (c.block.post_norms) {
    layer.o_norm = vector("attention_output_layernorm.weight");
    layer.down_norm = vector("mlp_output_layernorm.weight");
  }
  const std::string where = "layer " + std::to_string(index);
  layer.attn_in =
      shared_site(weights.sign_store, {views.q, views.k, views.v}, c.dim, where + ": q, k, v");
  layer.o_in = shared_site(weights.sign_store, {views.o}, q_rows, where + ": o");
  layer.mlp_in =
      shared_site(weights.sign_store, {views.gate, views.up}, c.dim, where + ": gate, up");
  layer.down_in = shared_site(weights.sign_store, {views.down}, c.ffn, where + ": down");
  layer.o_work = strip_work({&layer.o});
  layer.mlp_work = strip_work({&layer.gate, &layer.up});
  layer.down_work = strip_work({&layer.down});
}

Weights bind(const Binder& from) {
  const auto& c = from.config;
  Weights weights;
  // Spans into sign_store must stay valid: no reallocation of the outer vector's elements moves
  // their data, but reserve so that even the moves are few.
  weights.sign_store.reserve(static_cast<std::size_t>(4 * c.layers + 2));
  const models::MatrixView embedding = from.matrix("model.embed_tokens");
  const models::MatrixView head = c.tied_head ? embedding : from.matrix("lm_head");
  weights.embedding = to_linear(embedding, c.vocab, c.dim);
  weights.head = to_linear(head, c.vocab, c.dim);
  weights.head_in = shared_site(weights.sign_store, {head}, c.dim, "head");
  weights.head_work = strip_work({&weights.head});
  if (embedding.rotation.hadamard > 0) {
    weights.sign_store.push_back(models::rotation_signs(embedding.rotation, c.dim));
    weights.embedding_signs = weights.sign_store.back();
    weights.embedding_hadamard = embedding.rotation.hadamard;
    weights.embedding_ones.assign(static_cast<std::size_t>(c.dim), 1.0f);
  }
  weights.layers.resize(static_cast<std::size_t>(c.layers));
  for (int64_t i = 0; i < c.layers; ++i) bind_layer(weights, from, i);
  weights.final_norm = from.vector("model.norm.weight");
  for (const auto& layer : weights.layers)
    for (const Linear* w :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      weights.linear_bytes += packed_bytes(*w);
      weights.linear_weights += w->N * w->K;
    }
  weights.head_bytes = packed_bytes(weights.head);
  weights.embedding_bytes = packed_bytes(weights.embedding);
  return weights;
}

// Every band of every packed matrix in the order the engine reads them.
std::vector<kernels::PackedMatrix*> execution_order(Weights& weights, bool tied) {
  std::vector<kernels::PackedMatrix*> order;
  const auto add = [&](Linear& w) {
    for (kernels::PackedMatrix& band : w.bands) order.push_back(&band);
  };
  if (!tied) add(weights.embedding);
  for (auto& l : weights.layers)
    for (Linear* w : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) add(*w);
  add(weights.head);
  return order;
}

// Copied at a time before the file's pages are given back.
constexpr int64_t kCopyBytes = 1 << 20;

struct ArenaPlace {
  uint8_t* codes;
  uint16_t* scales;
  uint8_t* zeros;
};

void copy_slice(const kernels::PackedMatrix& from, const ArenaPlace& to, kernels::Range strips) {
  const int64_t codes = kernels::strip_code_bytes(from.cols, from.bits);
  const int64_t scales = kernels::group_count(from.cols, from.group) * kernels::kStripRows;
  const auto n = static_cast<std::size_t>(strips.end - strips.begin);
  std::memcpy(to.codes + strips.begin * codes, from.codes + strips.begin * codes,
              n * static_cast<std::size_t>(codes));
  std::memcpy(to.scales + strips.begin * scales, from.scales + strips.begin * scales,
              n * static_cast<std::size_t>(scales) * 2);
  if (from.zeros != nullptr)
    std::memcpy(to.zeros + strips.begin * scales, from.zeros + strips.begin * scales,
                n * static_cast<std::size_t>(scales));
}

void copy_to_arena(Weights& weights, bool tied, const models::MappedFile& file,
                   threads::Pool& pool) {
  const auto order = execution_order(weights, tied);
  std::size_t bytes = 0;
  for (const auto* w : order)
    bytes += Arena::aligned_size(static_cast<std::size_t>(code_bytes(*w))) +
             2 * Arena::aligned_size(static_cast<std::size_t>(scale_count(*w)) * 2);
  weights.arena = Arena(bytes, true);
  std::vector<ArenaPlace> places;
  for (const auto* w : order) {
    ArenaPlace place{};
    place.codes = weights.arena.take(static_cast<std::size_t>(code_bytes(*w)));
    place.scales =
        weights.arena.take_array<uint16_t>(static_cast<std::size_t>(scale_count(*w))).data();
    if (w->zeros != nullptr)
      place.zeros = weights.arena.take(static_cast<std::size_t>(scale_count(*w)));
    places.push_back(place);
  }
  // Validation has touched all the scales, and what is copied is given back too, so that the model
  // is not in memory twice.
  pool.run([&](const threads::Worker& worker) {
    for (std::size_t i = 0; i < order.size(); ++i) {
      const kernels::PackedMatrix& from = *order[i];
      const kernels::Range own = worker.slice(kernels::strip_count(from.rows));
      const int64_t strip = kernels::strip_code_bytes(from.cols, from.bits);
      const int64_t step = std::max<int64_t>(1, kCopyBytes / strip);
      for (int64_t s = own.begin; s < own.end; s += step) {
        const kernels::Range part{s, std::min(s + step, own.end)};
        copy_slice(from, places[i], part);
        file.release({from.codes + part.begin * strip,
                      static_cast<std::size_t>((part.end - part.begin) * strip)});
      }
      const auto scales = static_cast<std::size_t>(scale_count(from));
      file.release({reinterpret_cast<const uint8_t*>(from.scales), 2 * scales});
      if (from.zeros != nullptr) file.release({from.zeros, scales});
    }
  });
  file.release(file.bytes());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i]->codes = places[i].codes;
    order[i]->scales = places[i].scales;
    if (order[i]->zeros != nullptr) order[i]->zeros = places[i].zeros;
  }
  if (tied) weights.embedding.bands = weights.head.bands;
}

}  // namespace

Weights bind_weights(const models::Checkpoint& checkpoint, bool copy, threads::Pool& pool) {
  Binder from{checkpoint.config(), [&](const std::string& name) { return checkpoint.matrix(name); },
              [&](const std::string& name) { return checkpoint.vector(name); }};
  Weights weights = bind(from);
  if (copy) copy_to_arena(weights, checkpoint.config().tied_head, checkpoint.file(), pool);
  return weights;
}

Weights read_weights(const models::SourceModel& source, threads::Pool& pool) {
  const auto table = models::tensor_table(source.config);
  std::size_t bytes = 0;
  const auto elements = [](const models::TensorInfo& info) {
    std::size_t n = 1;
    for (const int64_t d : info.shape) n *= static_cast<std::size_t>(d);
    return n;
  };
  for (const auto& info : table) bytes += Arena::aligned_size(elements(info) * sizeof(float));
  Arena arena(bytes, true);
  std::vector<std::span<float>> places;
  for (const auto& info : table) places.push_back(arena.take_array<float>(elements(info)));

  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  pool.run([&](const threads::Worker&) {
    for (std::size_t i = next++; i < table.size(); i = next++) {
      try {
        source.read(table[i].name, places[i]);
      } catch (...) {
        const std::lock_guard lock(failure_mutex);
        failure = std::current_exception();
      }
    }
  });
  if (failure) std::rethrow_exception(failure);

  const auto find = [&](const std::string& name) -> std::span<const float> {
    const auto it = std::find_if(table.begin(), table.end(),
                                 [&](const auto& info) { return info.name == name; });
    return places[static_cast<std::size_t>(it - table.begin())];
  };
  Binder from{source.config,
              [&](const std::string& name) {
                models::MatrixView view;
                view.f32 = find(name);
                return view;
              },
              find};
  Weights weights = bind(from);
  weights.arena = std::move(arena);
  return weights;
}

}  // namespace crumb
