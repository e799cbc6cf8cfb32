// `.crumb` checkpoints: a valid safetensors file with everything inside. Specification:
// models/FORMAT.md.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/layout.h"
#include "models/bands.h"
#include "models/config.h"
#include "models/mapped_file.h"
#include "models/tensors.h"
#include "models/vocab.h"

namespace crumb::models {

struct SourceModel;

// What the runtime must do to a matrix's input: multiply column k by sign(seed, k), then Hadamard
// transforms of `hadamard` columns. 0 = no rotation.
struct Rotation {
  int64_t hadamard = 0;
  uint64_t seed = 0;
  bool operator==(const Rotation&) const = default;
};
// [K] of +1 / -1, from a counter-based generator (defined in FORMAT.md).
std::vector<float> rotation_signs(const Rotation& rotation, int64_t K);

// One stored matrix: packed, or float.
struct MatrixView {
  std::vector<kernels::PackedMatrix> bands;  // top to bottom, one width each; empty if float
  Rotation rotation;
  std::span<const float> f32;  // [N, K], empty if packed
};

class Checkpoint {
 public:
  // Maps and validates the whole structure before any view is handed out: header, exact tensor set
  // and shapes against tensor_table(config), alignment, bounds, no holes, vocabulary, finite
  // scales. Does not read the codes. Throws FormatError, IoError; a missing `required` feature is
  // named.
  static Checkpoint open(const std::string& path);
  static Checkpoint open(MappedFile file);

  const ModelConfig& config() const;
  const Vocab& vocab() const;
  const std::string& chat_template() const;
  const GenerationDefaults& generation() const;
  const std::map<std::string, std::string>& metadata() const;  // all strings of __metadata__
  const MappedFile& file() const;

  // Views live as long as the Checkpoint. Throws std::out_of_range for a name not in the table.
  MatrixView matrix(const std::string& name) const;
  std::span<const float> vector(const std::string& name) const;  // norms, biases

  // Compares every stored tensor with its checksum; returns the names that differ.
  std::vector<std::string> verify(
      const std::function<void(int64_t done, int64_t total)>& progress = {}) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// A matrix ready to be written; owns its bytes (64-byte multiples are made by the writer).
struct PackedData {
  int64_t rows = 0, cols = 0, group = 0;
  int bits = 0;  // 0 if `bands` says them
  kernels::Grid grid = kernels::Grid::kSeq;
  Rotation rotation;
  std::vector<uint8_t> codes;    // [strips, strip_code_bytes], band after band
  std::vector<uint16_t> scales;  // binary16 [strips, groups, 32]
  std::vector<uint8_t> zeros;    // [strips, groups, 32], kAsym only
  std::vector<Band> bands;       // as in MatrixPlan
};

// What a writer must be told before the first tensor: everything but the data.
struct CheckpointHeader {
  ModelConfig config;
  Vocab vocab;
  std::string chat_template;
  GenerationDefaults generation;
  std::string license;
  std::string recipe;  // JSON text: every stage, seed, hash, the source's own quantization
};

// Everything the source has beside weights, and a recipe.
CheckpointHeader header_of(const SourceModel& source, std::string recipe);

// How one matrix will be stored: enough to lay the file out before the data exists.
struct MatrixPlan {
  std::string name;
  int bits = 0;       // 2, 3, 4, 8; 32 = float; 0 = by bands
  int64_t group = 0;  // 32, 64, 128 or K
  kernels::Grid grid = kernels::Grid::kSeq;
  Rotation rotation;
  // Empty, or two or more covering all strips, neighbours of different bits.
  std::vector<Band> bands;
};
// The bands of a packed matrix: those of the plan, or one over all of N rows.
std::vector<Band> bands_of(const MatrixPlan& plan, int64_t N);
// Sets bits, or bands with neighbours of the same bits joined.
void set_bands(std::span<const Band> bands, MatrixPlan* plan);
// Bytes the matrix takes in the file (codes, scales, zeros, each padded to 64).
int64_t stored_bytes(const MatrixPlan& plan, int64_t N, int64_t K);

// The size of the file that CheckpointWriter makes of these. Throws as its constructor.
int64_t checkpoint_bytes(const CheckpointHeader& header, const std::vector<MatrixPlan>& plans);

// Writes the file through FileWriter, atomically. `plans` has one entry for every matrix of the
// table (may_be_quantized); tensors may be given in execution order only. Nothing is kept in memory
// but the tensor at hand; the header with the checksums is written into its reserved place before
// commit.
class CheckpointWriter {
 public:
  CheckpointWriter(const std::string& path, const CheckpointHeader& header,
                   const std::vector<MatrixPlan>& plans);
  ~CheckpointWriter();
  void add(const std::string& name, const PackedData& data);
  void add(const std::string& name, std::span<const float> data);  // vectors, and float matrices
  // Throws if a tensor is missing. Returns the file's size.
  uint64_t commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::models
