#include "quant/train/training_file.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "models/errors.h"
#include "models/file_writer.h"
#include "models/json.h"
#include "models/mapped_file.h"
#include "quant/grid.h"

namespace crumb::quant::train {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kPiece = std::size_t{16} << 20;
constexpr std::size_t kHeader = 8192;  // JSON text padded with spaces

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

template <class T>
std::span<const uint8_t> bytes_of(std::span<const T> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

class Hash {
 public:
  Hash() : state_(XXH3_createState()) { static_cast<void>(XXH3_64bits_reset(state_)); }
  ~Hash() { static_cast<void>(XXH3_freeState(state_)); }
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;
  void add(std::span<const uint8_t> bytes) {
    static_cast<void>(XXH3_64bits_update(state_, bytes.data(), bytes.size()));
  }
  uint64_t value() const { return XXH3_64bits_digest(state_); }

 private:
  XXH3_state_t* state_;
};

// Floats of each array; of learned widths and inputs 0 in most runs.
struct Sizes {
  int64_t parameters = 0, widths = 0, inputs = 0;
  int input_bits = 0;
};

std::string header(const char* kind, const TrainingPlace& place, const Sizes& sizes,
                   uint64_t hash) {
  std::string text = Json{
      {"schema", kind},
      {"step", place.step},
      {"cursor", place.cursor},
      {"restarts", place.restarts},
      {"moments_from", place.moments_from},
      {"recipe", place.recipe},
      {"size", sizes.parameters},
      {"widths", sizes.widths},
      {"inputs", sizes.inputs},
      {"input_bits", sizes.input_bits},
      {"hash", hash}}.dump();
  if (text.size() > kHeader)
    throw Error(ExitCode::kUsage, "recipe too long for a training state (expected at most " +
                                      std::to_string(kHeader / 2) + " bytes, found " +
                                      std::to_string(place.recipe.size()) + ")");
  text.resize(kHeader, ' ');
  return text;
}

struct Header {
  TrainingPlace place;
  Sizes sizes;
  uint64_t hash = 0;
};

Header parse_header(std::span<const uint8_t> bytes, const char* kind, const std::string& path) {
  const auto damaged = [&](const char* found) {
    return FormatError("damaged training state (" + path + ": expected " + kind + ", found " +
                       found + ")");
  };
  if (bytes.size() < kHeader) throw damaged("a short file");
  try {
    const Json json = Json::parse(bytes.begin(), bytes.begin() + kHeader);
    if (json.at("schema") != kind) throw damaged("another kind of file");
    return {{json.at("step"), json.at("cursor"), json.at("restarts"), json.at("moments_from"),
             json.at("recipe")},
            {json.at("size"), json.value("widths", int64_t{0}), json.value("inputs", int64_t{0}),
             json.value("input_bits", 0)},
            json.at("hash")};
  } catch (const Json::exception&) {
    throw damaged("no header");
  }
}

constexpr const char* kFull = "crumb.training/1";
constexpr const char* kCompact = "crumb.training-compact/1";

TrainingFile read_full(const std::string& path) {
  const models::MappedFile file(path);
  const auto bytes = file.bytes();
  const Header h = parse_header(bytes, kFull, path);
  const Sizes& n = h.sizes;
  for (const int64_t size : {n.parameters, n.widths, n.inputs})
    if (size < 0 || size > std::ssize(bytes))
      throw FormatError("damaged training state (" + path + ": a size of " + std::to_string(size) +
                        ")");
  const std::size_t floats = size_of(3 * n.parameters + 4 * n.widths + 3 * n.inputs);
  const std::size_t expected = kHeader + floats * sizeof(float);
  if (bytes.size() != expected)
    throw FormatError("damaged training state (" + path + ": expected " + std::to_string(expected) +
                      " bytes, found " + std::to_string(bytes.size()) + ")");
  if (XXH3_64bits(bytes.data() + kHeader, bytes.size() - kHeader) != h.hash)
    throw FormatError("damaged training state (" + path + ": checksum differs)");
  TrainingFile out{h.place, {}};
  std::size_t at = kHeader;
  const auto read = [&](std::vector<float>& values, int64_t size) {
    if (size == 0) return;  // memcpy does not take the null of an empty array
    values.resize(size_of(size));
    std::memcpy(values.data(), bytes.data() + at, values.size() * sizeof(float));
    at += values.size() * sizeof(float);
  };
  TrainingState& s = out.state;
  for (auto* values : {&s.parameters, &s.mean, &s.square}) read(*values, n.parameters);
  for (auto* values : {&s.widths.beta, &s.widths.mean, &s.widths.square, &s.widths.chosen})
    read(*values, n.widths);
  for (auto* values : {&s.inputs.log_alpha, &s.inputs.mean, &s.inputs.square})
    read(*values, n.inputs);
  s.inputs.bits = n.input_bits;
  return out;
}

// Step of a state file without reading the rest; -1 if there is none.
int64_t step_of(const std::string& path) {
  if (!std::filesystem::exists(path)) return -1;
  try {
    return parse_header(models::MappedFile(path).bytes(), kFull, path).place.step;
  } catch (const FormatError&) {
    return -1;
  }
}

// The place of a master in its group's grid: cells are [0, 1), .. of u = w / scale + zero + 1/2,
// and one step beyond either end is kept too.
struct Cells {
  float zero;
  int levels, per_step;
  // zero: of the asym grid.
  Cells(const MatrixForm& form, const uint8_t* zero_point)
      : zero(zero_point != nullptr
                 ? static_cast<float>(*zero_point)
                 : 0.5f * static_cast<float>(kernels::grid_zero2(form.grid, form.bits))),
        levels(1 << form.bits),
        per_step(256 / (levels + 2)) {}
  uint8_t pack(float w, double scale) const {
    const double u = static_cast<double>(w) / scale + static_cast<double>(zero) + 0.5;
    const double at = std::floor((u + 1) * per_step);
    return static_cast<uint8_t>(
        std::clamp(at, 0.0, static_cast<double>((levels + 2) * per_step - 1)));
  }
  float unpack(uint8_t byte, double scale) const {
    const double u = (byte + 0.5) / per_step - 1;
    return static_cast<float>((u - static_cast<double>(zero) - 0.5) * scale);
  }
};

template <class Work>
void for_groups(const Student& student, const Work& work) {
  for (std::size_t i = 0; i < student.parts.size(); ++i) {
    const MatrixPart& part = student.parts[i];
    const std::vector<uint8_t>& zeros = student.zeros[i];
    const int64_t group = part.groups == 1 ? part.K : student.layout.group;
    for (int64_t n = 0; n < part.N; ++n)
      for (int64_t g = 0; g < part.groups; ++g) {
        const int64_t at = n * part.groups + g;
        const Cells cells(student.forms[i], zeros.empty() ? nullptr : &zeros[size_of(at)]);
        work(cells, size_of(part.master_at + n * part.K + g * group), size_of(part.scale_at + at),
             size_of(std::min(group, part.K - g * group)));
      }
  }
}

double stored_scale(float log_scale) {
  return static_cast<double>(nearest_scale(std::exp(static_cast<double>(log_scale))));
}

std::string piece_name(const std::string& prefix, std::size_t index) {
  return prefix + (index < 10 ? ".0" : ".") + std::to_string(index);
}

}  // namespace

void save_full(const std::string& prefix, const TrainingPlace& place, const TrainingState& s) {
  const std::string a = prefix + ".a", b = prefix + ".b";
  models::FileWriter file(step_of(a) <= step_of(b) ? a : b);
  Hash hash;
  std::vector<std::span<const uint8_t>> parts;
  for (const auto* values :
       {&s.parameters, &s.mean, &s.square, &s.widths.beta, &s.widths.mean, &s.widths.square,
        &s.widths.chosen, &s.inputs.log_alpha, &s.inputs.mean, &s.inputs.square}) {
    parts.push_back(bytes_of(std::span<const float>(*values)));
    hash.add(parts.back());
  }
  const Sizes sizes{std::ssize(s.parameters), std::ssize(s.widths.beta),
                    std::ssize(s.inputs.log_alpha), s.inputs.bits};
  file.write(header(kFull, place, sizes, hash.value()));
  for (const auto& part : parts) file.write(part);
  file.commit();
}

std::optional<TrainingFile> load_full(const std::string& prefix) {
  std::string newer = prefix + ".a", older = prefix + ".b";
  if (step_of(newer) < step_of(older)) std::swap(newer, older);
  if (!std::filesystem::exists(newer) && !std::filesystem::exists(older)) return std::nullopt;
  try {
    return read_full(newer);
  } catch (const Error&) {
    if (!std::filesystem::exists(older)) throw;
    return read_full(older);
  }
}

int save_compact(const std::string& prefix, const Student& student, const TrainingFile& training) {
  if (!training.state.widths.beta.empty() || !training.state.inputs.log_alpha.empty())
    throw Error(ExitCode::kUsage,
                "a compact state cannot hold learned widths or inputs (" + prefix + ")",
                "save a full state (--state) or export the student");
  const auto& p = training.state.parameters;
  std::vector<uint8_t> data(size_of(student.layout.masters));
  for_groups(student, [&](const Cells& cells, std::size_t at, std::size_t scale_at, std::size_t K) {
    const double scale = stored_scale(p[scale_at]);
    for (std::size_t k = at; k < at + K; ++k) data[k] = cells.pack(p[k], scale);
  });
  const auto rest = bytes_of(std::span<const float>(p).subspan(data.size()));
  data.insert(data.end(), rest.begin(), rest.end());
  const std::string head = header(kCompact, training.place, {student.layout.size, 0, 0, 0},
                                  XXH3_64bits(data.data(), data.size()));
  data.insert(data.begin(), head.begin(), head.end());
  std::size_t pieces = 0;
  for (std::size_t at = 0; at < data.size(); at += kPiece, ++pieces) {
    models::FileWriter file(piece_name(prefix, pieces));
    file.write(std::span<const uint8_t>(data).subspan(at, std::min(kPiece, data.size() - at)));
    file.commit();
  }
  return static_cast<int>(pieces);
}

TrainingPlace compact_place(const std::string& prefix) {
  const models::MappedFile first(piece_name(prefix, 0));
  return parse_header(first.bytes(), kCompact, first.path()).place;
}

TrainingFile load_compact(const std::string& prefix, const Student& student) {
  const ParameterLayout& layout = student.layout;
  const std::size_t floats = size_of(layout.size - layout.masters) * sizeof(float);
  const std::size_t expected = kHeader + size_of(layout.masters) + floats;
  std::vector<uint8_t> data;
  for (std::size_t i = 0; data.size() < expected; ++i) {
    const models::MappedFile piece(piece_name(prefix, i));
    if (piece.bytes().empty()) throw FormatError("empty piece (" + piece.path() + ")");
    data.insert(data.end(), piece.bytes().begin(), piece.bytes().end());
  }
  const Header h = parse_header(data, kCompact, prefix);
  if (h.sizes.parameters != layout.size || data.size() != expected)
    throw FormatError("training state of another model (" + prefix + ": expected " +
                      std::to_string(layout.size) + " parameters, found " +
                      std::to_string(h.sizes.parameters) + ")");
  const auto body = std::span<const uint8_t>(data).subspan(kHeader);
  if (XXH3_64bits(body.data(), body.size()) != h.hash)
    throw FormatError("damaged training state (" + prefix + ": checksum differs)");
  TrainingFile out{h.place, {}};
  auto& p = out.state.parameters;
  p.resize(size_of(layout.size));
  std::memcpy(p.data() + layout.masters, body.data() + layout.masters, floats);
  for_groups(student, [&](const Cells& cells, std::size_t at, std::size_t scale_at, std::size_t K) {
    const double scale = stored_scale(p[scale_at]);
    for (std::size_t k = at; k < at + K; ++k) p[k] = cells.unpack(body[k], scale);
  });
  out.state.mean.resize(p.size());
  out.state.square.resize(p.size());
  ++out.place.restarts;
  out.place.moments_from = out.place.step;
  return out;
}

}  // namespace crumb::quant::train
