// The engine on the tiny model: against an obvious twin in double, and bit for bit against itself.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/transformer.h"
#include "models/errors.h"
#include "tests/engine/tiny.h"

namespace crumb {
namespace {

using kernels::Grid;
using test::Format;

constexpr Format kFloat{"f32", 32, 0};
// Rotations need a power of two of at least 32 that divides the columns (D = 64, F = 96, H * Dh =
// 64).
constexpr Format kFormats[] = {
    kFloat,
    {"int4_row", 4, 0},
    {"int4_g32", 4, 32},
    {"int2_row", 2, 0},
    {"int2_g32_lsq", 2, 32, Grid::kLsq},
    {"int8_g32", 8, 32},
    {"int4_g32_asym", 4, 32, Grid::kAsym},
    {"int4_row_rotated", 4, 0, Grid::kSeq, 32},
    {"bands_row_rotated", 4, 0, Grid::kSeq, 32, true},
    {"bands_g32_asym", 3, 32, Grid::kAsym, 0, true},
};

using Matrix = std::vector<double>;

Matrix times(const std::vector<float>& w, const Matrix& x) {  // w [N, K]
  const std::size_t K = x.size();
  Matrix y(w.size() / K);
  for (std::size_t n = 0; n < y.size(); ++n)
    for (std::size_t k = 0; k < K; ++k) y[n] += static_cast<double>(w[n * K + k]) * x[k];
  return y;
}

Matrix normed(const Matrix& x, const std::vector<float>& weight, double eps) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  Matrix y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    y[i] = x[i] / std::sqrt(sum / static_cast<double>(x.size()) + eps) *
           static_cast<double>(weight[i]);
  return y;
}

// RoPE of one layer: layers with a window may have a table of their own.
void turn(Matrix& heads, const models::ModelConfig& c, int64_t layer, int64_t position) {
  const bool local = models::window_of(c, layer) > 0 && c.block.rope_theta_local != 0;
  const double theta = local ? c.block.rope_theta_local : c.rope_theta;
  const double magnitude = local ? 1 : c.block.rope_magnitude;
  for (std::size_t i = 0; i + 1 < heads.size(); i += 2) {
    const auto pair = static_cast<int64_t>(i) % c.head_dim;
    double angle = static_cast<double>(position) *
                   std::pow(theta, -static_cast<double>(pair) / static_cast<double>(c.head_dim));
    if (!local && !c.block.rope_factors.empty())
      angle /= static_cast<double>(c.block.rope_factors[static_cast<std::size_t>(pair / 2)]);
    const double a = magnitude * heads[i], b = magnitude * heads[i + 1];
    heads[i] = a * std::cos(angle) - b * std::sin(angle);
    heads[i + 1] = a * std::sin(angle) + b * std::cos(angle);
  }
}

Matrix normed_heads(const Matrix& heads, const std::vector<float>& weight, double eps) {
  Matrix out;
  for (auto head = heads.begin(); head != heads.end();) {
    const auto next = head + static_cast<std::ptrdiff_t>(weight.size());
    const Matrix one = normed(Matrix(head, next), weight, eps);
    out.insert(out.end(), one.begin(), one.end());
    head = next;
  }
  return out;
}

double activated(double x, models::Activation activation) {
  if (activation == models::Activation::kSilu) return x / (1 + std::exp(-x));
  return x / 2 *
         (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

// Logits of the last position, every formula as the textbook has it, all in double.
Matrix obvious_logits(const models::SourceModel& model, const std::vector<int32_t>& ids) {
  const auto& c = model.config;
  const auto tensor = [&](const std::string& name) {
    for (const auto& info : models::tensor_table(c)) {
      if (info.name != name) continue;
      std::vector<float> data(
          static_cast<std::size_t>(info.shape[0] * (info.shape.size() > 1 ? info.shape[1] : 1)));
      model.read(name, data);
      return data;
    }
    throw std::runtime_error("no tensor " + name);
  };
  const auto D = static_cast<std::size_t>(c.dim), Dh = static_cast<std::size_t>(c.head_dim);
  const auto embedding = tensor("model.embed_tokens");
  std::vector<Matrix> x;
  for (const int32_t id : ids)
    x.emplace_back(embedding.begin() + id * c.dim, embedding.begin() + (id + 1) * c.dim);
  for (Matrix& row : x)
    for (double& value : row) value *= static_cast<double>(c.block.embedding_scale);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const auto get = [&](const char* suffix) {
      return tensor(models::layer_tensor(layer, suffix));
    };
    const auto wq = get("self_attn.q_proj"), wk = get("self_attn.k_proj"),
               wv = get("self_attn.v_proj"), wo = get("self_attn.o_proj"),
               gate = get("mlp.gate_proj"), up = get("mlp.up_proj"), down = get("mlp.down_proj"),
               norm1 = get("input_layernorm.weight"),
               norm2 = get("post_attention_layernorm.weight");
    const auto biased = [&](Matrix y, const char* suffix) {
      if (!c.qkv_bias) return y;
      const auto bias = get(suffix);
      for (std::size_t i = 0; i < y.size(); ++i) y[i] += static_cast<double>(bias[i]);
      return y;
    };
    std::vector<Matrix> keys, values;
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Matrix h = normed(x[t], norm1, c.norm_eps);
      Matrix q = biased(times(wq, h), "self_attn.q_proj.bias"),
             k = biased(times(wk, h), "self_attn.k_proj.bias");
      if (c.block.qk_norm) {
        q = normed_heads(q, get("self_attn.q_norm.weight"), c.norm_eps);
        k = normed_heads(k, get("self_attn.k_norm.weight"), c.norm_eps);
      }
      turn(q, c, layer, static_cast<int64_t>(t));
      turn(k, c, layer, static_cast<int64_t>(t));
      keys.push_back(k);
      values.push_back(biased(times(wv, h), "self_attn.v_proj.bias"));
      Matrix attention(q.size());
      for (std::size_t head = 0; head < static_cast<std::size_t>(c.heads); ++head) {
        const std::size_t from = head * Dh,
                          kv = head / static_cast<std::size_t>(c.heads / c.kv_heads) * Dh;
        Matrix p(t + 1);
        double sum = 0;
        const auto window = static_cast<std::size_t>(models::window_of(c, layer));
        const std::size_t start = window > 0 && t + 1 > window ? t + 1 - window : 0;
        const double scale = c.block.attention_scale != 0
                                 ? static_cast<double>(c.block.attention_scale)
                                 : 1 / std::sqrt(static_cast<double>(Dh));
        for (std::size_t j = start; j <= t; ++j) {
          double dot = 0;
          for (std::size_t i = 0; i < Dh; ++i) dot += q[from + i] * keys[j][kv + i];
          sum += p[j] = std::exp(dot * scale);
        }
        for (std::size_t j = start; j <= t; ++j)
          for (std::size_t i = 0; i < Dh; ++i)
            attention[from + i] += p[j] / sum * values[j][kv + i];
      }
      Matrix o = times(wo, attention);
      if (c.block.post_norms) o = normed(o, get("attention_output_layernorm.weight"), c.norm_eps);
      for (std::size_t i = 0; i < D; ++i) x[t][i] += o[i];
      const Matrix m = normed(x[t], norm2, c.norm_eps), u = times(up, m);
      Matrix g = times(gate, m);
      for (std::size_t i = 0; i < g.size(); ++i) g[i] = activated(g[i], c.block.activation) * u[i];
      Matrix y = times(down, g);
      if (c.block.post_norms) y = normed(y, get("mlp_output_layernorm.weight"), c.norm_eps);
      for (std::size_t i = 0; i < D; ++i) x[t][i] += y[i];
    }
  }
  return times(c.tied_head ? embedding : tensor("lm_head"),
               normed(x.back(), tensor("model.norm.weight"), c.norm_eps));
}

void expect_close(std::span<const float> got, const Matrix& want, double bound) {
  ASSERT_EQ(got.size(), want.size());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - want[i]));
  EXPECT_LE(worst, bound);
}

std::shared_ptr<const Engine> on_two_threads(const models::SourceModel& source) {
  LoadOptions load;
  load.threads = 2;
  load.pin = false;
  return Engine::from_source(source, load);
}

TEST(Transformer, EqualsTheObviousTwin) {
  models::TinyOptions untied, odd, qwen;
  untied.tied_head = false;
  odd.heads = 6;
  odd.kv_heads = 3;  // heads that cannot be divided into whole strips
  odd.head_dim = 20;
  odd.ffn = 100;
  qwen.architecture = "qwen2";
  qwen.qkv_bias = true;
  for (const auto& options : {models::TinyOptions{}, untied, odd, qwen}) {
    const auto source = models::tiny_model(options);
    const auto engine = on_two_threads(source);
    SessionOptions session;
    session.kv = kernels::KvType::kF32;
    const auto ids = test::some_ids(23, source.config.vocab);
    expect_close(engine->make_session(session)->forward(ids), obvious_logits(source, ids), 2e-4);
    session.kv = kernels::KvType::kF16;
    expect_close(engine->make_session(session)->forward(ids), obvious_logits(source, ids), 2e-2);
    session.kv = kernels::KvType::kI8;
    expect_close(engine->make_session(session)->forward(ids), obvious_logits(source, ids), 2e-1);
  }
}

models::TinyOptions gemma_like() {
  models::TinyOptions options;
  options.architecture = "gemma3";
  options.layers = 3;
  options.context = 1200;
  options.block.qk_norm = options.block.post_norms = true;
  options.block.activation = models::Activation::kGeluTanh;
  options.block.embedding_scale = 8;
  options.block.window = 7;
  options.block.window_every = 3;
  options.block.rope_theta_local = 1000;
  options.block.rope_factors.assign(8, 4.0f);
  return options;
}

TEST(Transformer, BlocksThatDifferEqualTheObviousTwin) {
  models::TinyOptions qwen3, scaled;
  qwen3.architecture = "qwen3";
  qwen3.block.qk_norm = true;
  scaled.block.rope_factors = {1, 1, 1.5f, 2, 3, 4, 4, 4};
  scaled.block.rope_magnitude = 1.1f;
  scaled.block.attention_scale = 0.3f;
  scaled.block.window = 5;
  for (const auto& options : {gemma_like(), qwen3, scaled}) {
    SCOPED_TRACE(options.architecture);
    const auto source = models::tiny_model(options);
    const auto engine = on_two_threads(source);
    SessionOptions session;
    session.kv = kernels::KvType::kF32;
    const auto ids = test::some_ids(23, source.config.vocab);
    // The scaled embedding makes the gemma-like model's values larger.
    expect_close(engine->make_session(session)->forward(ids), obvious_logits(source, ids), 1e-3);
  }
}

// A window that begins in a later chunk of the cache than position 0, all at once and token by
// token, must give the same bits; and what lies before every window must not matter.
TEST(Transformer, WindowsOverSeveralChunksOfTheCache) {
  models::TinyOptions options = gemma_like();
  options.block.window = 530;
  options.block.window_every = 0;
  options.layers = 1;
  const auto source = models::tiny_model(options);
  const auto engine = on_two_threads(source);
  SessionOptions session;
  session.kv = kernels::KvType::kF32;
  auto ids = test::some_ids(1100, source.config.vocab);
  const auto at_once = engine->make_session(session);
  const auto logits = at_once->forward(ids);
  const std::vector<float> want(logits.begin(), logits.end());
  const auto stepwise = engine->make_session(session);
  stepwise->forward(std::span(ids).first(1080));
  for (std::size_t i = 1080; i + 1 < ids.size(); ++i)
    stepwise->forward(std::span(ids).subspan(i, 1));
  const auto last = stepwise->forward(std::span(ids).last(1));
  EXPECT_EQ(std::memcmp(want.data(), last.data(), want.size() * sizeof(float)), 0);
  // One layer sees positions 570 to 1099 only.
  ids[500] = (ids[500] + 1) % 300;
  const auto again = engine->make_session(session);
  const auto unseen = again->forward(ids);
  EXPECT_EQ(std::vector<float>(unseen.begin(), unseen.end()), want);
  ids[575] = (ids[575] + 1) % 300;
  again->truncate(0);
  const auto seen = again->forward(ids);
  EXPECT_NE(std::vector<float>(seen.begin(), seen.end()), want);
}

// A packed model against the floats that its file stands for: what remains is int8 inputs (0.08
// with one width, 0.05 and 0.09 with bands).
TEST(Transformer, BandsComputeWhatTheFileSays) {
  models::TinyOptions options;
  options.ffn = 160;  // five strips
  const test::TempDir dir;
  for (const Format& format :
       {Format{"one width", 4, 0, Grid::kSeq, 32}, Format{"bands", 4, 0, Grid::kSeq, 32, true},
        Format{"bands with zeros", 3, 32, Grid::kAsym, 0, true}}) {
    SCOPED_TRACE(format.name);
    test::write_tiny(format, dir.file("tiny.crumb"), options);
    LoadOptions load;
    load.threads = 2;
    load.pin = false;
    const auto packed = Engine::load(dir.file("tiny.crumb"), load);
    const auto source = models::open_source(dir.file("tiny.crumb"));
    SessionOptions session;
    session.kv = kernels::KvType::kF32;
    const auto ids = test::some_ids(23, source.config.vocab);
    expect_close(packed->make_session(session)->forward(ids), obvious_logits(source, ids), 0.2);
  }
}

TEST(OwnStrips, MixedWidthsAreDividedByWork) {
  threads::Barrier barrier(3);
  const StripWork work = {0, 8, 10, 12, 14, 22, 24};  // strips of 8, 2, 2, 2, 8 and 2 bits
  int64_t next = 0;
  for (int i = 0; i < 3; ++i) {
    const kernels::Range own = own_strips(work, 6 * 32, threads::Worker(i, 3, &barrier));
    EXPECT_EQ(own.begin, next);
    EXPECT_LE(work[static_cast<std::size_t>(own.end)] - work[static_cast<std::size_t>(own.begin)],
              14);
    next = own.end;
  }
  EXPECT_EQ(next, 6);
  // Of one width: an equal number.
  EXPECT_EQ(own_strips({}, 6 * 32, threads::Worker(1, 3, &barrier)).begin, 2);
}

class BitEqual : public testing::TestWithParam<Format> {};

TEST_P(BitEqual, OverThreadsAndChunks) {
  LoadOptions one;
  one.threads = 1;
  const auto ids = test::some_ids(75, 300);
  const auto want = test::all_logits(*test::tiny_engine(GetParam(), one), ids, {});
  for (const int threads : {1, 2, 3, 4}) {
    LoadOptions load;
    load.threads = threads;
    const auto engine = test::tiny_engine(GetParam(), load);
    for (const int64_t chunk : {1, 7, 64, 256}) {
      SessionOptions options;
      options.chunk = chunk;
      const auto got = test::all_logits(*engine, ids, options);
      ASSERT_EQ(got.size(), want.size());
      EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0)
          << threads << " threads, chunks of " << chunk;
    }
  }
}

TEST_P(BitEqual, OverKernels) {
  const auto ids = test::some_ids(20, 300);
  std::vector<float> want;
  for (const auto* backend : kernels::backends()) {
    LoadOptions load;
    load.isa = backend->name;
    const auto got = test::all_logits(*test::tiny_engine(GetParam(), load), ids, {});
    if (want.empty()) want = got;
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0)
        << backend->name;
  }
}

TEST_P(BitEqual, CachedAndMapped) {
  LoadOptions mapped;
  mapped.copy_weights = false;
  const test::TempDir dir;
  if (GetParam().bits == 32) GTEST_SKIP() << "a float source is always copied";
  test::write_tiny(GetParam(), dir.file("tiny.crumb"));
  const auto engine = Engine::load(dir.file("tiny.crumb"), mapped);
  const auto ids = test::some_ids(40, 300);
  const auto session = engine->make_session();
  const std::span<const float> cold = session->forward(ids);
  const std::vector<float> want(cold.begin(), cold.end());
  session->truncate(13);
  const std::span<const float> warm = session->forward(std::span(ids).subspan(13));
  EXPECT_EQ(std::memcmp(warm.data(), want.data(), want.size() * sizeof(float)), 0)
      << "after a cached prefix";
  const auto copied = test::tiny_engine(GetParam())->make_session();
  EXPECT_EQ(std::memcmp(copied->forward(ids).data(), want.data(), want.size() * sizeof(float)), 0)
      << "weights copied into the arena";
}

TEST_P(BitEqual, BlockMaximaAreThoseOfTheLastLogits) {
  for (const int threads : {1, 2, 3}) {
    LoadOptions load;
    load.threads = threads;
    const auto engine = test::tiny_engine(GetParam(), load);
    const auto session = engine->make_session();
    const auto ids = test::some_ids(20, 300);
    for (const std::size_t n : {19, 1}) {  // a prompt, then one token
      const auto logits = session->forward(std::span(ids).subspan(n == 1 ? 19 : 0, n));
      std::vector<float> want(static_cast<std::size_t>(logit_blocks(std::ssize(logits))));
      find_block_max(logits, want.data());
      EXPECT_TRUE(std::ranges::equal(session->block_max(), want)) << threads << " threads, " << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, BitEqual, testing::ValuesIn(kFormats),
                         [](const auto& test_case) { return std::string(test_case.param.name); });

TEST(Session, ContextLimitIsAnError) {
  const auto engine = test::tiny_engine(kFloat);
  SessionOptions options;
  options.context = 16;
  const auto session = engine->make_session(options);
  EXPECT_THROW(session->forward(test::some_ids(17, 300)), Error);
  EXPECT_EQ(session->position(), 0) << "nothing is read when it does not fit";
  session->forward(test::some_ids(16, 300));
  EXPECT_THROW(session->forward(test::some_ids(1, 300)), Error);
  options.context = 100000;
  EXPECT_THROW(engine->make_session(options), Error);
}

TEST(Session, RefusesTokensOutOfRange) {
  const auto session = test::tiny_engine(kFloat)->make_session();
  for (const int32_t id : {-1, 300}) EXPECT_THROW(session->forward({&id, 1}), Error);
}

TEST(Session, NotANumberIsAnError) {
  auto source = models::tiny_model();
  const auto read = source.read;
  source.read = [read](std::string_view name, std::span<float> out) {
    read(name, out);
    if (name == "model.norm.weight") std::fill(out.begin(), out.end(), 3e38f);
  };
  LoadOptions load;
  load.pin = false;
  const auto session = Engine::from_source(source, load)->make_session();
  try {
    session->forward(test::some_ids(3, 300));
    FAIL() << "infinite logits went unnoticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNumeric);
  }
}

TEST(Engine, UnknownKernelsAreNamed) {
  LoadOptions load;
  load.isa = "altivec";
  try {
    test::tiny_engine(kFloat, load);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("scalar"), std::string::npos);
  }
}

}  // namespace
}  // namespace crumb
