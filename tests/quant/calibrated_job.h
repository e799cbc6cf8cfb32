// Calibrated jobs on the tiny model, for tests.
#pragma once
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "quant/quantize.h"
#include "tests/engine/tiny.h"

namespace crumb::quant::test_jobs {

inline Method rotated_ldlq(int bits) {
  Method method;
  method.rounding = Rounding::kLdlq;
  method.bits = bits;
  method.group = 0;
  method.rule = ScaleRule::kWeighted;
  method.rotation = {32, 3};
  return method;
}

// `method` for every matrix, but for an embedding of its own.
inline QuantizeOptions calibrated(const Method& method, const models::SourceModel& source) {
  QuantizeOptions options;
  options.linear = options.embedding = options.head = method;
  if (!source.config.tied_head) options.embedding = Method{};
  options.embedding.group = 0;
  CalibrationText text;
  text.windows = {40, test::some_ids(6 * 40, source.config.vocab)};
  text.source = "test";
  options.calibration = std::move(text);
  options.threads = 2;
  return options;
}

inline std::string file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

}  // namespace crumb::quant::test_jobs
