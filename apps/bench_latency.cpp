#include "apps/bench_latency.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <random>

#include "engine/arena.h"
#include "engine/threads/pool.h"
#include "kernels/aligned.h"
#include "kernels/float16.h"
#include "kernels/layout.h"
#include "models/tensors.h"
#include "quant/apq/space.h"

namespace crumb::apps {
namespace {

using Clock = std::chrono::steady_clock;

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

int64_t group_in(int64_t group, int64_t K) { return group == 0 ? K : std::min(group, K); }

// All matrices of the blocks at one width, behind each other as in an engine's arena.
struct Weights {
  Arena arena;
  std::vector<kernels::PackedMatrix> matrices;
};
Weights random_weights(const std::vector<LatencyRow>& rows, int bits, int64_t group) {
  const auto code_bytes = [&](const LatencyRow& r) {
    return size_of(kernels::strip_count(r.N) * kernels::strip_code_bytes(r.K, bits));
  };
  const auto scales = [&](const LatencyRow& r) {
    return size_of(kernels::strip_count(r.N) * kernels::kStripRows *
                   kernels::group_count(r.K, group_in(group, r.K)));
  };
  std::size_t bytes = 0;
  for (const LatencyRow& r : rows)
    bytes += Arena::aligned_size(code_bytes(r)) + Arena::aligned_size(2 * scales(r));
  Weights weights{Arena(bytes, true), {}};
  std::mt19937_64 rng(1);
  for (const LatencyRow& r : rows) {
    const auto codes = weights.arena.take_array<uint8_t>(code_bytes(r));
    for (uint8_t& byte : codes) byte = static_cast<uint8_t>(rng());
    const auto s = weights.arena.take_array<uint16_t>(scales(r));
    std::ranges::fill(s, kernels::f32_to_f16(0.01f));
    weights.matrices.push_back({codes.data(), s.data(), nullptr, r.N, r.K, group_in(group, r.K),
                                bits, kernels::Grid::kSeq});
  }
  return weights;
}

// One token for the widest matrix.
struct Token {
  Token(int64_t K, int64_t N)
      : q(size_of((K + 63) / 64 * 64)),
        scales(size_of((K + 31) / 32)),
        sums(size_of((K + 31) / 32)),
        y(size_of(kernels::strip_count(N) * kernels::kStripRows)) {
    std::mt19937_64 rng(2);
    for (int8_t& v : q.span()) v = static_cast<int8_t>(static_cast<int64_t>(rng() % 255) - 127);
    std::ranges::fill(scales.span(), 0.02f);
  }
  kernels::QuantizedRows rows(int64_t K, int64_t group) const {
    const int64_t Kp = kernels::padded_columns(K), of = group == 0 ? Kp : std::min(group, Kp);
    return {q.data(),
            scales.data(),
            sums.data(),
            1,
            (K + 63) / 64 * 64,
            of,
            kernels::group_count(Kp, of)};
  }
  kernels::AlignedBuffer<int8_t> q;
  kernels::AlignedBuffer<float> scales;
  kernels::AlignedBuffer<int32_t> sums;
  kernels::AlignedBuffer<float> y;
};

std::vector<LatencyRow> rows_of(const models::ModelConfig& config) {
  std::vector<LatencyRow> rows;
  for (const models::TensorInfo& t : models::tensor_table(config))
    if (t.role == models::TensorRole::kLinear) rows.push_back({t.name, t.shape[0], t.shape[1], {}});
  return rows;
}

// Means over the matrices of one shape.
void even_out(std::vector<LatencyRow>& rows) {
  struct Shape {
    std::array<double, kLatencyWidths.size()> sum{};
    double count = 0;
  };
  std::map<std::pair<int64_t, int64_t>, Shape> shapes;
  for (const LatencyRow& r : rows) {
    Shape& shape = shapes[{r.N, r.K}];
    ++shape.count;
    for (std::size_t w = 0; w < r.ns.size(); ++w) shape.sum[w] += r.ns[w];
  }
  for (LatencyRow& r : rows) {
    const Shape& shape = shapes.at({r.N, r.K});
    for (std::size_t w = 0; w < r.ns.size(); ++w) r.ns[w] = shape.sum[w] / shape.count;
  }
}

}  // namespace

std::vector<LatencyRow> measure_latency(const models::ModelConfig& config, int64_t group,
                                        const threads::Plan& plan, const kernels::Backend& backend,
                                        int passes, Signals& signals) {
  std::vector<LatencyRow> rows = rows_of(config);
  int64_t widest = 0, longest = 0;
  for (const LatencyRow& r : rows) {
    widest = std::max(widest, r.K);
    longest = std::max(longest, r.N);
  }
  Token token(widest, longest);
  threads::Pool pool(plan);
  for (std::size_t w = 0; w < kLatencyWidths.size(); ++w) {
    const Weights weights = random_weights(rows, kLatencyWidths[w], group);
    std::vector<std::vector<double>> ns(rows.size());
    for (auto& samples : ns) samples.reserve(size_of(passes));
    for (int pass = -1; pass < passes; ++pass) {  // the first one warms up
      if (signals.pending() != 0) throw Stopped{signals.pending()};
      pool.run([&](const threads::Worker& worker) {
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const kernels::PackedMatrix& m = weights.matrices[i];
          const auto start = Clock::now();
          backend.matmul(m, token.rows(m.cols, group), worker.slice(kernels::strip_count(m.rows)),
                         token.y.data(), m.rows);
          if (worker.index() == 0 && pass >= 0)
            ns[i].push_back(std::chrono::duration<double, std::nano>(Clock::now() - start).count());
          worker.sync();
        }
      });
    }
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i].ns[w] = quantile(ns[i], 0.5);
  }
  even_out(rows);
  return rows;
}

double predicted_ns(const std::vector<LatencyRow>& rows, const std::vector<int>& bits) {
  double sum = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto width = std::ranges::find(kLatencyWidths, bits.at(i));
    if (width == kLatencyWidths.end()) return 0;
    sum += rows[i].ns[static_cast<std::size_t>(width - kLatencyWidths.begin())];
  }
  return sum;
}

Json shape_latencies(const models::ModelConfig& config, const std::vector<LatencyRow>& rows,
                     bool pruned, int64_t group, const threads::Plan& plan,
                     const kernels::Backend& backend, int passes, Signals& signals) {
  std::map<std::pair<int64_t, int64_t>, LatencyRow> shapes;
  const auto keep = [&](const std::vector<LatencyRow>& some) {
    for (const LatencyRow& r : some) shapes.emplace(std::pair(r.N, r.K), r);
  };
  keep(rows);
  if (pruned) {
    const auto space = quant::apq::space_of(config, std::vector<int>{4});
    const std::size_t variants = std::max(space.ffn.size(), space.kv_heads.size());
    for (std::size_t v = 1; v < variants; ++v) {
      models::ModelConfig cut = config;
      cut.ffn = space.ffn[std::min(v, space.ffn.size() - 1)];
      cut.kv_heads = space.kv_heads[std::min(v, space.kv_heads.size() - 1)];
      cut.heads = config.heads / config.kv_heads * cut.kv_heads;
      keep(measure_latency(cut, group, plan, backend, passes, signals));
    }
  }
  Json json = Json::array();
  for (const auto& [shape, row] : shapes)
    json.push_back({{"rows", shape.first}, {"cols", shape.second}, {"ns", row.ns}});
  return json;
}

Json latency_json(const std::vector<LatencyRow>& rows) {
  Json json = {{"schema", "crumb.latency/1"}, {"widths", kLatencyWidths}};
  for (const LatencyRow& r : rows) json["costs"][r.name] = r.ns;
  json["budget"] = predicted_ns(rows, std::vector<int>(rows.size(), 4));
  return json;
}

}  // namespace crumb::apps
