// Text a model writes by itself, row by row: what a row begins with, whose turn comes next, how a
// token is chosen. The same on every device (text_writer.h here, cuda/generate.h on a GPU).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace crumb::quant::train {

// A row starts with one of the prefixes; when the turn's end is sampled, the header of the next
// turn is forced, headers taking turns. Without headers text runs on. JSON: {"prefixes": [[ids]],
// "headers": [[ids]], "end": id}; headers and end may be absent.
struct TextScript {
  std::vector<std::vector<int32_t>> prefixes, headers;
  int32_t end = -1;  // token id; -1: none
};
// Throws Error(kUsage) for another text, or ids outside [0, V).
TextScript script_from_json(const std::string& text, int64_t V);
// Throws Error(kUsage) for a prefix of more than `length` tokens.
void require_prefixes_fit(const TextScript& script, int64_t length);

struct Sampling {
  float temperature = 1.0f;  // 0: the largest logit
  float min_p = 0.02f;       // tokens less likely than this share of the likeliest are left out
  uint64_t seed = 1;
};

// Where a row stands in its script.
struct RowState {
  int32_t prefix = 0, header = 0, forced = -1;  // forced: index within the header, -1: sampling
};

// Row `row` of all; prefix and random numbers depend on seed, row and position only.
RowState start_row(const TextScript& script, const Sampling& sampling, int64_t row);
// The token of position t + 1 from the logits [V] of position t. Forced ones do not look at them.
int32_t next_token(const TextScript& script, const Sampling& sampling,
                   std::span<const float> logits, int64_t row, int64_t t, RowState* state);

}  // namespace crumb::quant::train
