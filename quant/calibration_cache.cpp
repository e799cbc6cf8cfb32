#include "quant/calibration_cache.h"

#include <cmath>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "models/byte_reader.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/mapped_file.h"
#include "quant/bytes.h"

namespace crumb::quant {
namespace {

constexpr std::string_view kMagic = "CRCALIB1";
constexpr uint64_t kChecksumBytes = 8;
// Room for the rounding of H, mean and max to float in the relations between them.
constexpr double kSlack = 1 + 1e-4;
constexpr const char* kHint = "delete the file: it is computed again";

uint64_t hash_windows(const CalibrationWindows& windows) {
  return hash_of(windows.ids.data(), windows.ids.size() * sizeof(int32_t),
                 static_cast<uint64_t>(windows.S));
}

void expect(models::ByteReader& reader, std::string_view what, int64_t expected) {
  const auto found = reader.read<uint64_t>(what);
  if (found != static_cast<uint64_t>(expected))
    reader.fail(what, std::to_string(expected), std::to_string(found), kHint);
}

float read_value(models::ByteReader& reader, std::string_view what) {
  const auto value = reader.read<float>(what);
  if (!std::isfinite(value)) reader.fail(what, "a number", std::to_string(value), kHint);
  return value;
}

std::vector<float> read_sizes(models::ByteReader& reader, int64_t K, std::string_view what) {
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(K));
  for (int64_t k = 0; k < K; ++k) {
    values.push_back(read_value(reader, what));
    if (values.back() < 0) reader.fail(what, "at least 0", std::to_string(values.back()), kHint);
  }
  return values;
}

void read_moments(models::ByteReader& reader, InputStatistics& s) {
  const auto K = static_cast<std::size_t>(s.K);
  s.H.resize(K * K);
  for (std::size_t i = 0; i < K; ++i)
    for (std::size_t j = 0; j <= i; ++j)
      s.H[i * K + j] = s.H[j * K + i] = static_cast<double>(read_value(reader, "second moment"));
}

// What every second moment, mean and maximum of the same numbers fulfil.
void require_lawful(const models::ByteReader& reader, const InputStatistics& s) {
  const auto K = static_cast<std::size_t>(s.K);
  for (std::size_t i = 0; i < K; ++i) {
    const double own = s.H[i * K + i], mean = static_cast<double>(s.mean_abs[i]),
                 most = static_cast<double>(s.max_abs[i]);
    if (own < 0) reader.fail("second moment", "at least 0", std::to_string(own), kHint);
    if (mean > most * kSlack)
      reader.fail("mean |x|", "at most max |x|", std::to_string(mean), kHint);
    // Squares of tiny values vanish in float: what is compared must not be.
    if (most * most > 1e-30 && most * most > own * static_cast<double>(s.tokens) * kSlack)
      reader.fail("max |x|", "at most sqrt(tokens * H)", std::to_string(most), kHint);
    for (std::size_t j = 0; j < i; ++j) {
      const double both = s.H[i * K + j] * s.H[i * K + j], limit = own * s.H[j * K + j];
      if (both > limit * kSlack + 1e-60)
        reader.fail("second moment", "at most sqrt(H_ii H_jj)", std::to_string(s.H[i * K + j]),
                    kHint);
    }
  }
}

}  // namespace

std::string windows_hash(const CalibrationWindows& windows) { return hex(hash_windows(windows)); }

CalibrationCache::CalibrationCache(std::string folder, const models::SourceModel& source,
                                   const CalibrationWindows& windows)
    : folder_(std::move(folder)),
      key_(hex(hash_of(source.hash.data(), source.hash.size(), hash_windows(windows)))),
      config_(source.config),
      tokens_(std::ssize(windows.ids)) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error)
    throw IoError("cannot create the folder of statistics (" + folder_ + ": " + error.message() +
                  ")");
}

std::string CalibrationCache::path(int64_t layer) const {
  return folder_ + "/" + key_ + "-" + std::to_string(layer) + ".calib";
}

void CalibrationCache::save(int64_t layer, const BlockStatistics& statistics) const {
  std::string bytes(kMagic);
  add(bytes, static_cast<uint64_t>(layer));
  add(bytes, static_cast<uint64_t>(statistics.inputs.size()));
  for (const InputStatistics& s : statistics.inputs) {
    const auto K = static_cast<std::size_t>(s.K);
    add(bytes, static_cast<uint64_t>(s.K));
    add(bytes, static_cast<uint64_t>(s.tokens));
    for (const float v : s.mean_abs) add(bytes, v);
    for (const float v : s.max_abs) add(bytes, v);
    for (std::size_t i = 0; i < K; ++i)
      for (std::size_t j = 0; j <= i; ++j) add(bytes, static_cast<float>(s.H[i * K + j]));
  }
  add(bytes, hash_of(bytes.data(), bytes.size(), 0));
  models::FileWriter writer(path(layer));
  writer.write(std::string_view(bytes));
  writer.commit();
}

std::optional<BlockStatistics> CalibrationCache::load(int64_t layer) const {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(path(layer), error);
  if (status.type() == std::filesystem::file_type::not_found) return std::nullopt;
  const models::MappedFile file(path(layer));
  const auto bytes = file.bytes();
  models::ByteReader reader(bytes, file.path());
  if (reader.text(kMagic.size(), "magic") != kMagic)
    reader.fail("magic", kMagic, "other bytes", kHint);
  reader.require_count(1, kChecksumBytes, "checksum");
  const auto body = bytes.first(bytes.size() - kChecksumBytes);
  models::ByteReader end(bytes.last(kChecksumBytes), file.path());
  if (end.read<uint64_t>("checksum") != hash_of(body.data(), body.size(), 0))
    reader.fail("checksum", "that of the bytes", "another", kHint);
  expect(reader, "layer", layer);
  BlockStatistics statistics;
  expect(reader, "number of inputs", std::ssize(statistics.inputs));
  for (const train::LinearInput input : train::kLinearInputs) {
    InputStatistics& s = statistics.inputs[static_cast<std::size_t>(input)];
    s.K = train::linear_input_width(models::layer_config(config_, layer), input);
    s.tokens = tokens_;
    expect(reader, "columns", s.K);
    expect(reader, "tokens", s.tokens);
    const auto K = static_cast<uint64_t>(s.K);
    reader.require_count(2 * K + K * (K + 1) / 2, sizeof(float), "statistics");
    s.mean_abs = read_sizes(reader, s.K, "mean |x|");
    s.max_abs = read_sizes(reader, s.K, "max |x|");
    read_moments(reader, s);
    require_lawful(reader, s);
  }
  if (reader.remaining() != kChecksumBytes)
    reader.fail("end of file", std::to_string(kChecksumBytes) + " bytes",
                std::to_string(reader.remaining()), kHint);
  return statistics;
}

}  // namespace crumb::quant
