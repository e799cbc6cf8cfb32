#include "quant/apq/latency.h"

#include <algorithm>
#include <cmath>

#include "models/errors.h"
#include "models/json.h"
#include "quant/block_job.h"

namespace crumb::quant::apq {
namespace {

constexpr std::array kTableWidths = {2, 3, 4, 8};

[[noreturn]] void fail(const std::string& file, const std::string& expected) {
  throw Error(ExitCode::kUsage, "no table of latencies (" + file + ": expected " + expected + ")",
              "crumb bench --latency-table --pruned -m MODEL > FILE makes one");
}

double number(const nlohmann::json& json, const char* name, const std::string& file) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_number() || !std::isfinite(found->get<double>()) ||
      *found < 0)
    fail(file, std::string(name) + ", a number");
  return *found;
}

int64_t size(const nlohmann::json& shape, const char* name, const std::string& file) {
  const auto found = shape.find(name);
  if (found == shape.end() || !found->is_number_unsigned())
    fail(file, std::string(name) + ", a whole number");
  return *found;
}

// Where it was measured; only shown.
std::string place_of(const nlohmann::json& json, const std::string& file) {
  for (const char* name : {"cpu", "isa"})
    if (json.contains(name) && !json[name].is_string()) fail(file, std::string(name) + ", a text");
  return json.value("cpu", "") + ", " + json.value("isa", "") + ", " +
         std::to_string(json.contains("threads") ? size(json, "threads", file) : 0) + " threads";
}

// [rows, columns] of a matrix of a layer with F units and `kv` KV heads.
std::pair<int64_t, int64_t> shape_of(const models::ModelConfig& c, std::string_view suffix,
                                     int64_t F, int64_t kv) {
  const int64_t keys = kv * c.head_dim, queries = c.heads / c.kv_heads * keys;
  if (suffix == "self_attn.q_proj") return {queries, c.dim};
  if (suffix == "self_attn.o_proj") return {c.dim, queries};
  if (suffix == "mlp.down_proj") return {c.dim, F};
  if (suffix.starts_with("mlp")) return {F, c.dim};
  return {keys, c.dim};
}

}  // namespace

double LatencyTable::matrix_ns(int64_t rows, int64_t columns, int bits) const {
  const auto found = shapes.find({rows, columns});
  const auto width = std::ranges::find(kTableWidths, bits);
  if (found == shapes.end() || width == kTableWidths.end())
    throw Error(ExitCode::kUsage,
                "the table of latencies has no matrix of this shape (expected " +
                    std::to_string(rows) + " x " + std::to_string(columns) + " at " +
                    std::to_string(bits) + " bits)",
                "crumb bench --latency-table --pruned -m MODEL measures them");
  return found->second[static_cast<std::size_t>(width - kTableWidths.begin())];
}

LatencyTable latency_from_json(const std::string& text, const std::string& file) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("schema") || json["schema"] != "crumb.latency/1")
    fail(file, "crumb.latency/1");
  LatencyTable table;
  const auto shapes = json.find("shapes");
  if (shapes == json.end() || !shapes->is_array()) fail(file, "shapes");
  for (const auto& shape : *shapes) {
    const auto ns = shape.find("ns");
    if (!shape.is_object() || ns == shape.end() || !ns->is_array() || ns->size() != 4)
      fail(file, "shapes of rows, cols and four ns");
    auto& row = table.shapes[{size(shape, "rows", file), size(shape, "cols", file)}];
    for (std::size_t i = 0; i < 4; ++i) {
      if (!(*ns)[i].is_number()) fail(file, "shapes of rows, cols and four ns");
      row[i] = (*ns)[i];
    }
  }
  const auto model = json.find("model");
  if (model == json.end() || !model->is_object()) fail(file, "a packed model's own token");
  table.head_ns = number(*model, "head_ns", file);
  table.layer_ns = number(*model, "layer_ns", file);
  table.attention_ns = number(*model, "attention_ns", file);
  table.context = number(*model, "context", file);
  table.text = place_of(json, file);
  return table;
}

double layer_latency(const LatencyTable& table, const models::ModelConfig& config,
                     const Space& space, const LayerChoice& layer) {
  const int64_t F = space.ffn[layer.ffn], kv = space.kv_heads[layer.kv_heads];
  double ns = table.layer_ns + table.attention_ns * static_cast<double>(kv);
  for (const BlockMatrix& m : block_matrices()) {
    const auto [rows, columns] = shape_of(config, m.suffix, F, kv);
    ns +=
        table.matrix_ns(rows, columns, space.widths[layer.bits[static_cast<std::size_t>(m.input)]]);
  }
  return ns;
}

double latency_of(const LatencyTable& table, const models::ModelConfig& config, const Space& space,
                  const Subnet& subnet) {
  double ns = table.head_ns;
  for (const LayerChoice& layer : subnet)
    if (layer.present) ns += layer_latency(table, config, space, layer);
  return ns;
}

}  // namespace crumb::quant::apq
