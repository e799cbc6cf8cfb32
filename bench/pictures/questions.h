// Questions about a scene and their only right answers.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bench/pictures/scene.h"

namespace crumb::pictures {

struct Question {
  std::string_view
      kind;  // "colour", "shape", "place", "count", "exists", "side", "text", "caption"
  std::string text, answer;
};

// All that can be asked of the scene without doubt: things are named only by what is theirs alone.
// Wording is drawn by seed and number, as scenes are.
std::vector<Question> questions_of(const Scene& scene, uint64_t seed, uint64_t number);

// Lower case, without punctuation, articles and space at the ends; digits for number words up to
// four: what answers are compared by.
std::string normal_answer(std::string_view text);

}  // namespace crumb::pictures
