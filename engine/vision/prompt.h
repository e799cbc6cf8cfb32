// Where images stand in a prompt: the chat template places them, their rows' ids go there.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tokenizer/tokenizer.h"

namespace crumb::vision {

// `content` of a message with `images` images before its text, as the model's template takes it:
// the text alone if there are none; a list of parts if the template writes images itself
// (VisionConfig::image_text); else the text behind a mark for each.
nlohmann::ordered_json content_with_images(const Engine& engine, const std::string& text,
                                           int64_t images);

// The ids of a rendered prompt with `images` images in all: texts by the tokenizer, images as ids
// below 0, ~0 for the first row of the first and so on (Session::forward). Without images what
// Tokenizer::encode gives. Throws Error(kUsage) for images without a tower, FormatError if the
// template left one out or made more of them.
std::vector<int32_t> encode_with_images(const Engine& engine,
                                        std::span<const tokenizer::Segment> prompt, int64_t images,
                                        tokenizer::EncodeReport* report);

// Ids with the rows [R, D] that those below 0 stand for.
struct PromptIds {
  std::span<const int32_t> ids;
  std::span<const float> rows;
};
// How many ids at the beginning mean the same: equal tokens, and images with equal rows, for an id
// below 0 alone says nothing of what was seen.
std::size_t common_prefix(const PromptIds& a, const PromptIds& b, int64_t D);

}  // namespace crumb::vision
