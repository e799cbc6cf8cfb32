// Helpers of models_test: files in a directory of their own, random checkpoints, counted memory.
#pragma once
#include <cstdint>
#include <filesystem>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "models/checkpoint.h"
#include "models/source.h"
#include "models/tiny_model.h"
#include "tests/support/temp_dir.h"

namespace crumb::models {

// The name of a parameterised test.
inline void PrintTo(const TinyOptions& options, std::ostream* out) {
  *out << options.architecture << " D " << options.dim << " V " << options.vocab;
}

}  // namespace crumb::models

namespace crumb::models::test {

using crumb::test::TempDir;

std::vector<uint8_t> read_bytes(const std::string& path);
// Not atomic: for tests that write damaged files.
void write_bytes(const std::string& path, std::span<const uint8_t> bytes);
// <repo>/tests/golden/NAME.
std::string golden(const std::string& name);

std::vector<float> read_tensor(const SourceModel& model, const TensorInfo& info);

// Plans of every matrix of the model, walking through all bits, groups and grids; every third
// rotated where 32 divides K, every seventh in float.
std::vector<MatrixPlan> mixed_plans(const ModelConfig& config);
// Random codes, zeros in range, random small scales (0 in padding rows): a lawful matrix, not a
// good one.
// The same with two or three bands in every packed matrix that has as many strips.
std::vector<MatrixPlan> banded_plans(const ModelConfig& config);
PackedData random_packed(const MatrixPlan& plan, int64_t N, int64_t K, uint64_t seed);
// Everything of the model in the plans' forms; packed matrices are random_packed of their index.
uint64_t write_crumb(const std::string& path, const SourceModel& model,
                     const std::vector<MatrixPlan>& plans);

// Bytes allocated through operator new since reset, at their peak.
void reset_peak();
int64_t peak_bytes();

}  // namespace crumb::models::test
