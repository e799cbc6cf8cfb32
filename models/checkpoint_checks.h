// What must hold of a checkpoint's stored bytes before views of them are handed out. Each throws
// FormatError naming the tensor. Internal to models/; bench/micro/load_bench.cpp measures what they
// cost.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/layout.h"
#include "models/checkpoint_layout.h"
#include "models/safetensors.h"

namespace crumb::models {

// The file's tensors are exactly the expected ones: names, types, shapes, order, zero padding.
void match_layout(const Safetensors& container, const std::vector<StoredTensor>& expected,
                  const std::string& file);

// Finite, and 0 in the rows that only fill the last strip. scales [strips, groups, 32], binary16.
void check_scales(std::span<const uint16_t> scales, int64_t N, int64_t groups,
                  const std::string& name, const std::string& file);

void check_finite(std::span<const float> values, const std::string& name, const std::string& file);

// Zero points below 2^bits; nothing to do if the band has none.
void check_zeros(const kernels::PackedMatrix& band, const std::string& name,
                 const std::string& file);

}  // namespace crumb::models
