// Engines over the tiny random model, float and packed.
#pragma once
#include <filesystem>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "models/tiny_model.h"
#include "quant/quantize.h"
#include "tests/support/temp_dir.h"

namespace crumb::test {

struct Format {
  const char* name;
  int bits;  // 32: float
  int64_t group;
  kernels::Grid grid = kernels::Grid::kSeq;
  int64_t hadamard = 0;
  bool banded = false;  // strips of `bits` and other widths in turn
};
inline void PrintTo(const Format& format, std::ostream* out) { *out << format.name; }

// The tiny model quantized in `format` and written to `path`.
inline void write_tiny(const Format& format, const std::string& path,
                       const models::TinyOptions& options = {}) {
  quant::QuantizeOptions q;
  quant::Method rtn;
  rtn.bits = format.bits;
  rtn.group = format.group;
  rtn.grid = format.grid;
  rtn.rotation = {format.hadamard, format.hadamard > 0 ? uint64_t{7} : 0};
  q.linear = q.embedding = q.head = rtn;
  const auto source = models::tiny_model(options);
  for (const auto& tensor : models::tensor_table(source.config)) {
    if (!format.banded || !models::may_be_quantized(tensor.role)) continue;
    constexpr int kOthers[] = {8, 2, 4, 3};
    auto& bands = q.bands[tensor.name];
    for (int64_t s = 0; s < kernels::strip_count(tensor.shape[0]); ++s)
      bands.push_back({1, s % 2 == 0 ? format.bits : kOthers[s / 2 % 4]});
  }
  quant::quantize(source, q, path, {});
}

inline std::shared_ptr<const Engine> tiny_engine(const Format& format, LoadOptions load = {},
                                                 const models::TinyOptions& options = {}) {
  load.pin = false;
  if (format.bits == 32) return Engine::from_source(models::tiny_model(options), load);
  const TempDir dir;
  write_tiny(format, dir.file("tiny.crumb"), options);
  return Engine::load(dir.file("tiny.crumb"), load);
}

inline std::vector<int32_t> some_ids(int64_t n, int64_t vocab) {
  std::vector<int32_t> ids;
  uint64_t x = 88172645463325252u;
  for (int64_t i = 0; i < n; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    ids.push_back(static_cast<int32_t>(3 + x % static_cast<uint64_t>(vocab - 3)));
  }
  return ids;
}

// Logits of every position, one after the other.
inline std::vector<float> all_logits(const Engine& engine, const std::vector<int32_t>& ids,
                                     const SessionOptions& options) {
  std::vector<float> out;
  engine.make_session(options)->forward_all(ids, [&](int64_t, std::span<const float> row) {
    out.insert(out.end(), row.begin(), row.end());
  });
  return out;
}

}  // namespace crumb::test
