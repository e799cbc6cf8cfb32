// What the fuzz targets share. A target is one function over any bytes, run by libFuzzer or, over
// the committed corpus, by replay.cpp. What it may do is return; anything else is a finding.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/errors.h"
#include "models/source.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size);

namespace crumb::fuzz {

[[noreturn]] inline void finding(std::string_view what) {
  std::fprintf(stderr, "finding: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// Runs `action` on an untrusted file. It ends, or throws an Error that calls the file bad (or its
// weights not finite) in one printable line. Returns whether it ended.
template <class Action>
bool accepts(const Action& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    const std::string_view what = error.what();
    if (error.code() != ExitCode::kBadFile && error.code() != ExitCode::kNumeric)
      finding("an error that is not the file's: " + std::string(what));
    if (what.find("found") == what.npos) finding("an error without what was found");
    for (const char c : what)
      if (static_cast<unsigned char>(c) < 0x20) finding("an error with a control byte");
    return false;
  }
}

// Every weight of the model, through its importer's dequantization. Weights that are not finite
// end it.
inline void read_weights(const models::SourceModel& model) {
  std::vector<float> values;
  for (const models::TensorInfo& info : models::tensor_table(model.config)) {
    values.resize(static_cast<std::size_t>(models::weights_of(info)));
    model.read(info.name, values);
  }
}

}  // namespace crumb::fuzz
