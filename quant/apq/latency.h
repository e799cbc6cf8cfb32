// What a subnet's token costs: matrices by a measured table of shapes and widths, all else by what
// one whole model's token took (crumb bench --latency-table --pruned).
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "models/config.h"
#include "quant/apq/space.h"

namespace crumb::quant::apq {

struct LatencyTable {
  // Nanoseconds of a matrix [rows, columns] at 2, 3, 4 and 8 bits.
  std::map<std::pair<int64_t, int64_t>, std::array<double, 4>> shapes;
  double head_ns = 0;       // the head, and what comes once a token
  double layer_ns = 0;      // norms, activations and barriers of one layer
  double attention_ns = 0;  // of one KV head of one layer, at `context`
  double context = 0;       // positions seen, mean of the tokens measured
  std::string text;         // cpu, isa and threads, for people

  double matrix_ns(int64_t rows, int64_t columns, int bits) const;
};

// Throws Error(kUsage) naming `file` for text that is no such table, or one without the parts that
// the search needs.
LatencyTable latency_from_json(const std::string& text, const std::string& file);

// Nanoseconds of a token. Throws Error(kUsage) for a shape that the table does not have.
double latency_of(const LatencyTable& table, const models::ModelConfig& config, const Space& space,
                  const Subnet& subnet);
// The same of one layer that is present.
double layer_latency(const LatencyTable& table, const models::ModelConfig& config,
                     const Space& space, const LayerChoice& layer);

}  // namespace crumb::quant::apq
