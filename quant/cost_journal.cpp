#include "quant/cost_journal.h"

#include <utility>

#include "quant/bytes.h"
#include "quant/recipe.h"

namespace crumb::quant {
namespace {

std::string identity(const models::SourceModel& source, const QuantizeOptions& options,
                     const CostOptions& costs) {
  return recipe_json(source, options) + " " + std::to_string(costs.output_windows) + " " +
         std::to_string(costs.seed);
}

std::string read_name(models::ByteReader& reader) {
  return std::string(reader.text(reader.read<uint64_t>("name"), "name"));
}

}  // namespace

CostJournal::CostJournal(std::string folder, const models::SourceModel& source,
                         const QuantizeOptions& options, const CostOptions& costs,
                         const NoticeFn& notice)
    : files_(std::move(folder), "CRCOST01", identity(source, options, costs), notice),
      moments_part_(source.config.layers) {}

std::optional<std::vector<MatrixCosts>> CostJournal::load_block(int64_t layer) const {
  std::vector<MatrixCosts> block;
  const bool there = files_.load(layer, [&](models::ByteReader& reader) {
    block.resize(reader.read<uint64_t>("matrices"));
    for (MatrixCosts& matrix : block) {
      matrix.name = read_name(reader);
      matrix.N = reader.read<int64_t>("rows");
      matrix.K = reader.read<int64_t>("columns");
      for (std::size_t i = 0; i < kWidths.size(); ++i) {
        matrix.strips[i] = read_array<double>(reader, "strips");
        matrix.columns[i] = read_array<double>(reader, "columns");
      }
    }
  });
  return there ? std::optional(std::move(block)) : std::nullopt;
}

void CostJournal::save_block(int64_t layer, const std::vector<MatrixCosts>& block) const {
  std::string bytes;
  add(bytes, static_cast<uint64_t>(block.size()));
  for (const MatrixCosts& matrix : block) {
    add_array(bytes, std::span(matrix.name));
    add(bytes, matrix.N);
    add(bytes, matrix.K);
    for (std::size_t i = 0; i < kWidths.size(); ++i) {
      add_array(bytes, std::span(matrix.strips[i]));
      add_array(bytes, std::span(matrix.columns[i]));
    }
  }
  files_.save(layer, bytes);
}

std::optional<OutputMoments> CostJournal::load_moments() const {
  OutputMoments moments;
  const bool there = files_.load(moments_part_, [&](models::ByteReader& reader) {
    const auto count = reader.read<uint64_t>("matrices");
    for (uint64_t i = 0; i < count; ++i) {
      const std::string name = read_name(reader);
      moments.rows[name] = read_array<float>(reader, "moments");
    }
  });
  return there ? std::optional(std::move(moments)) : std::nullopt;
}

void CostJournal::save_moments(const OutputMoments& moments) const {
  std::string bytes;
  add(bytes, static_cast<uint64_t>(moments.rows.size()));
  for (const auto& [name, rows] : moments.rows) {
    add_array(bytes, std::span(name));
    add_array(bytes, std::span(rows));
  }
  files_.save(moments_part_, bytes);
}

}  // namespace crumb::quant
