#include "models/checkpoint_checks.h"

#include <algorithm>
#include <cmath>

#include "models/errors.h"
#include "models/text.h"

namespace crumb::models {
namespace {

[[noreturn]] void fail(const std::string& file, const std::string& what,
                       const std::string& expected, const std::string& found) {
  throw FormatError("invalid " + what + " (" + file + ": expected " + expected + ", found " +
                    found + ")");
}

}  // namespace

void match_layout(const Safetensors& container, const std::vector<StoredTensor>& expected,
                  const std::string& file) {
  if (reinterpret_cast<uintptr_t>(container.data.data()) % kTensorAlign != 0)
    fail(file, "header length", "tensor data at a multiple of 64",
         std::to_string(container.header.size() + 8));
  for (std::size_t i = 0; i < std::min(expected.size(), container.tensors.size()); ++i) {
    const SafetensorsEntry& found = container.tensors[i];
    const StoredTensor& want = expected[i];
    if (found.name != want.name)
      fail(file, "tensor " + std::to_string(i), printable(want.name), printable(found.name));
    if (found.dtype->name != want.dtype)
      fail(file, "type of tensor " + printable(want.name), std::string(want.dtype),
           std::string(found.dtype->name));
    if (found.shape != want.stored_shape)
      fail(file, "shape of tensor " + printable(want.name),
           std::to_string(want.stored_bytes) + " bytes in its shape",
           std::to_string(found.end - found.begin));
    for (uint64_t at = found.begin + static_cast<uint64_t>(want.bytes); at < found.end; ++at)
      if (container.data[at] != 0)
        fail(file, "padding of tensor " + printable(want.name), "zeros", "another byte");
  }
  if (container.tensors.size() != expected.size())
    fail(file, "number of tensors", std::to_string(expected.size()),
         std::to_string(container.tensors.size()));
}

void check_scales(std::span<const uint16_t> scales, int64_t N, int64_t groups,
                  const std::string& name, const std::string& file) {
  // The largest magnitude as a signed 16-bit maximum, which vectorizes: from 0x7c00 on not finite.
  int16_t largest = 0;
  for (const uint16_t scale : scales)
    largest = std::max(largest, static_cast<int16_t>(scale & 0x7fff));
  if (largest >= 0x7c00)
    fail(file, "scales of " + printable(name), "finite numbers", "NaN or infinity");
  const int64_t last = N / kernels::kStripRows;
  for (int64_t row = N % kernels::kStripRows;
       last < kernels::strip_count(N) && row < kernels::kStripRows; ++row)
    for (int64_t group = 0; group < groups; ++group)
      if (scales[static_cast<std::size_t>((last * groups + group) * kernels::kStripRows + row)] !=
          0)
        fail(file, "scales of " + printable(name), "0 in padding rows", "another value");
}

void check_finite(std::span<const float> values, const std::string& name, const std::string& file) {
  for (const float value : values)
    if (!std::isfinite(value))
      fail(file, "values of " + printable(name), "finite numbers", "NaN or infinity");
}

void check_zeros(const kernels::PackedMatrix& band, const std::string& name,
                 const std::string& file) {
  if (band.zeros == nullptr) return;
  const int64_t count = kernels::strip_count(band.rows) *
                        kernels::group_count(band.cols, band.group) * kernels::kStripRows;
  if (*std::max_element(band.zeros, band.zeros + count) >> band.bits != 0)
    fail(file, "zeros of " + printable(name), "less than 2^" + std::to_string(band.bits),
         "a larger one");
}

}  // namespace crumb::models
