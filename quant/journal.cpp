#include "quant/journal.h"

#include <string_view>
#include <utility>
#include <vector>

#include "quant/bytes.h"

namespace crumb::quant {
namespace {

constexpr std::string_view kMagic = "CRJRNL03";
constexpr double kNone = -1;  // an output error that was not measured

void add_tensor(std::string& bytes, const StoredTensor& tensor) {
  add_array(bytes, std::span(tensor.name));
  if (!tensor.values.empty()) {
    add(bytes, uint64_t{32});
    add_array(bytes, std::span(tensor.values));
    return;
  }
  const models::PackedData& packed = tensor.packed;
  add(bytes, static_cast<uint64_t>(packed.bits));
  for (const int64_t value : {packed.rows, packed.cols, packed.group,
                              static_cast<int64_t>(packed.grid), packed.rotation.hadamard})
    add(bytes, static_cast<uint64_t>(value));
  add(bytes, packed.rotation.seed);
  add(bytes, static_cast<uint64_t>(packed.bands.size()));
  for (const models::Band& band : packed.bands) {
    add(bytes, static_cast<uint64_t>(band.strips));
    add(bytes, static_cast<uint64_t>(band.bits));
  }
  const TensorReport& report = tensor.report;
  for (const double value :
       {report.distortion.mse, report.distortion.relative_error,
        report.output_error.value_or(kNone), report.damping, report.shift_damping})
    add(bytes, value);
  add(bytes, static_cast<uint64_t>(report.dead));
  add_array(bytes, std::span(packed.codes));
  add_array(bytes, std::span(packed.scales));
  add_array(bytes, std::span(packed.zeros));
}

// The checksum has said that these bytes are the ones that were written.
StoredTensor read_tensor(models::ByteReader& reader) {
  StoredTensor tensor;
  tensor.name = reader.text(reader.read<uint64_t>("name"), "name");
  models::PackedData& packed = tensor.packed;
  packed.bits = static_cast<int>(reader.read<uint64_t>("bits"));
  if (packed.bits == 32) {
    tensor.values = read_array<float>(reader, "values");
    return tensor;
  }
  packed.rows = reader.read<int64_t>("rows");
  packed.cols = reader.read<int64_t>("columns");
  packed.group = reader.read<int64_t>("group");
  packed.grid = static_cast<kernels::Grid>(reader.read<uint64_t>("grid"));
  packed.rotation.hadamard = reader.read<int64_t>("rotation");
  packed.rotation.seed = reader.read<uint64_t>("seed");
  const auto bands = reader.read<uint64_t>("bands");
  for (uint64_t i = 0; i < bands; ++i) {
    const auto strips = reader.read<int64_t>("strips");
    packed.bands.push_back({strips, static_cast<int>(reader.read<uint64_t>("bits"))});
  }
  TensorReport& report = tensor.report;
  report.name = tensor.name;
  report.distortion.mse = reader.read<double>("error");
  report.distortion.relative_error = reader.read<double>("error");
  const auto output_error = reader.read<double>("output error");
  if (output_error != kNone) report.output_error = output_error;
  report.damping = reader.read<double>("damping");
  report.shift_damping = reader.read<double>("damping of the shift");
  report.dead = reader.read<int64_t>("dead columns");
  packed.codes = read_array<uint8_t>(reader, "codes");
  packed.scales = read_array<uint16_t>(reader, "scales");
  packed.zeros = read_array<uint8_t>(reader, "zeros");
  return tensor;
}

}  // namespace

Journal::Journal(std::string folder, const std::string& recipe, const NoticeFn& notice)
    : files_(std::move(folder), kMagic, recipe, notice) {}

std::string Journal::path(int64_t part) const { return files_.path(part); }

void Journal::save(int64_t part, const StoredBlock& block) const {
  std::string bytes;
  add(bytes, static_cast<uint64_t>(block.size()));
  for (const StoredTensor& tensor : block) add_tensor(bytes, tensor);
  files_.save(part, bytes);
}

std::optional<StoredBlock> Journal::load(int64_t part) const {
  StoredBlock block;
  const bool there = files_.load(part, [&](models::ByteReader& reader) {
    const auto count = reader.read<uint64_t>("tensors");
    for (uint64_t i = 0; i < count; ++i) block.push_back(read_tensor(reader));
  });
  return there ? std::optional(std::move(block)) : std::nullopt;
}

void Journal::remove() const { files_.remove(); }

}  // namespace crumb::quant
