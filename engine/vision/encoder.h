// An image to rows of the decoder: patches, the tower's layers, the projector (models/vision.h).
//
// All matrices run on engine/linear.h's kernels, attention on the decoder's without a mask, so rows
// are bit-equal whatever the number of threads and the instruction set: threads divide rows of
// matrices, tokens and heads, never a sum. The obvious loops that it is tested against:
// tests/engine/vision_twin.h.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/vision/image.h"

namespace crumb::vision {

struct Encoding {
  std::vector<float> features;  // [patches, D of the tower], behind its last norm
  std::vector<float> rows;      // [image tokens, D of the decoder]
};

// Of the pixels [3, S, S] (engine/vision/preprocess.h). One at a time on an engine. Throws
// Error(kUsage) for a model without a tower, kNumeric if a value is not finite, kInternal for
// another number of pixels.
Encoding encode(const Engine& engine, std::span<const float> pixels);

// The rows of an image. Throws as encode().
std::shared_ptr<const std::vector<float>> look(const Engine& engine, const Image& image);

}  // namespace crumb::vision
