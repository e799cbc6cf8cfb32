#include "quant/journal.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "models/byte_reader.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/mapped_file.h"
#include "quant/bytes.h"

namespace crumb::quant {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "CRJRNL02";
constexpr uint64_t kChecksumBytes = 8;
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
  for (const double value : {report.distortion.mse, report.distortion.relative_error,
                             report.output_error.value_or(kNone), report.damping})
    add(bytes, value);
  add(bytes, static_cast<uint64_t>(report.dead));
  add_array(bytes, std::span(packed.codes));
  add_array(bytes, std::span(packed.scales));
  add_array(bytes, std::span(packed.zeros));
}

template <class T>
std::vector<T> read_array(models::ByteReader& reader, std::string_view what) {
  const auto size = reader.read<uint64_t>(what);
  const auto bytes = reader.take(size, what);
  std::vector<T> values(size / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
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
  report.dead = reader.read<int64_t>("dead columns");
  packed.codes = read_array<uint8_t>(reader, "codes");
  packed.scales = read_array<uint16_t>(reader, "scales");
  packed.zeros = read_array<uint8_t>(reader, "zeros");
  return tensor;
}

void tell(const NoticeFn& notice, const std::string& line) {
  if (notice) notice(line);
}

// Parts of another recipe, and what killed processes left of parts being written.
void remove_others(const std::string& folder, const std::string& key, const NoticeFn& notice) {
  std::vector<fs::path> others;
  bool other_recipe = false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool temporary = name.find(".tmp-") != std::string::npos;
    if (name.starts_with(key) && !temporary) continue;
    others.push_back(entry.path());
    other_recipe = other_recipe || !temporary;
  }
  if (other_recipe)
    tell(notice, "the journal " + folder + " is of another source or recipe: starting over");
  for (const fs::path& path : others) fs::remove(path);
}

}  // namespace

Journal::Journal(std::string folder, const std::string& recipe, const NoticeFn& notice)
    : folder_(std::move(folder)),
      key_(hex(hash_of(recipe.data(), recipe.size(), 0))),
      notice_(notice) {
  try {
    fs::create_directories(folder_);
    remove_others(folder_, key_, notice_);
  } catch (const fs::filesystem_error& error) {
    throw IoError("cannot use the journal (" + folder_ + ": " + error.code().message() + ")");
  }
}

std::string Journal::path(int64_t part) const {
  return folder_ + "/" + key_ + "-" + std::to_string(part);
}

void Journal::save(int64_t part, const StoredBlock& block) const {
  std::string bytes(kMagic);
  add(bytes, static_cast<uint64_t>(part));
  add(bytes, static_cast<uint64_t>(block.size()));
  for (const StoredTensor& tensor : block) add_tensor(bytes, tensor);
  add(bytes, hash_of(bytes.data(), bytes.size(), 0));
  models::write_file(path(part), bytes);
}

StoredBlock Journal::read(int64_t part) const {
  const models::MappedFile file(path(part));
  const auto bytes = file.bytes();
  models::ByteReader reader(bytes, file.path());
  reader.require_count(1, kMagic.size() + kChecksumBytes, "journal");
  const auto body = bytes.first(bytes.size() - kChecksumBytes);
  models::ByteReader end(bytes.last(kChecksumBytes), file.path());
  if (end.read<uint64_t>("checksum") != hash_of(body.data(), body.size(), 0))
    reader.fail("checksum", "that of the bytes", "another");
  if (reader.text(kMagic.size(), "magic") != kMagic) reader.fail("magic", kMagic, "other bytes");
  const auto found = reader.read<uint64_t>("part");
  if (found != static_cast<uint64_t>(part))
    reader.fail("part", std::to_string(part), std::to_string(found));
  StoredBlock block;
  const auto count = reader.read<uint64_t>("tensors");
  for (uint64_t i = 0; i < count; ++i) block.push_back(read_tensor(reader));
  return block;
}

std::optional<StoredBlock> Journal::load(int64_t part) const {
  std::error_code error;
  if (!fs::exists(path(part), error)) return std::nullopt;
  try {
    return read(part);
  } catch (const FormatError& damage) {
    tell(notice_, std::string(damage.what()) + ": this part is computed again");
    return std::nullopt;
  }
}

void Journal::remove() const {
  std::error_code error;  // what cannot be removed costs disk only
  fs::remove_all(folder_, error);
}

}  // namespace crumb::quant
