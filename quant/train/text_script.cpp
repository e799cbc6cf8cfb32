#include "quant/train/text_script.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "models/errors.h"
#include "models/json.h"
#include "quant/train/mix.h"

namespace crumb::quant::train {
namespace {

// Gumbel's trick: the largest of z / temperature - log(-log(u)) is a sample of the softmax.
int32_t sample(const Sampling& how, std::span<const float> logits, uint64_t key) {
  const auto top = std::ranges::max_element(logits);  // the first of equals
  auto best = static_cast<int32_t>(top - logits.begin());
  if (how.temperature <= 0) return best;
  const float least = *top + how.temperature * std::log(how.min_p);
  float value = -std::numeric_limits<float>::infinity();
  for (std::size_t v = 0; v < logits.size(); ++v) {
    if (logits[v] < least) continue;
    const double u = (static_cast<double>(mix(key + v) >> 11) + 0.5) * 0x1p-53;
    const float z = logits[v] / how.temperature + static_cast<float>(-std::log(-std::log(u)));
    if (z <= value) continue;
    value = z;
    best = static_cast<int32_t>(v);
  }
  return best;
}

uint64_t row_key(const Sampling& sampling, int64_t row) {
  return mix(mix(sampling.seed) + static_cast<uint64_t>(row));
}

}  // namespace

TextScript script_from_json(const std::string& text, int64_t V) {
  TextScript script;
  try {
    const auto json = nlohmann::json::parse(text);
    json.at("prefixes").get_to(script.prefixes);
    script.headers = json.value("headers", script.headers);
    script.end = json.value("end", script.end);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::kUsage, std::string("generation script (") + error.what() + ")");
  }
  if (script.prefixes.empty())
    throw Error(ExitCode::kUsage, "generation script (prefixes: expected one or more, found none)");
  for (const auto* lists : {&script.prefixes, &script.headers})
    for (const auto& list : *lists) {
      if (list.empty()) throw Error(ExitCode::kUsage, "generation script (found an empty list)");
      for (const int32_t id : list)
        if (id < 0 || id >= V)
          throw Error(ExitCode::kUsage, "generation script (token id: expected less than " +
                                            std::to_string(V) + ", found " + std::to_string(id) +
                                            ")");
    }
  return script;
}

void require_prefixes_fit(const TextScript& script, int64_t length) {
  for (const auto& prefix : script.prefixes)
    if (std::ssize(prefix) > length)
      throw Error(ExitCode::kUsage, "prefix longer than a row (expected at most " +
                                        std::to_string(length) + " tokens, found " +
                                        std::to_string(prefix.size()) + ")");
}

RowState start_row(const TextScript& script, const Sampling& sampling, int64_t row) {
  return {static_cast<int32_t>(row_key(sampling, row) % script.prefixes.size()), 0, -1};
}

int32_t next_token(const TextScript& script, const Sampling& sampling,
                   std::span<const float> logits, int64_t row, int64_t t, RowState* state) {
  const auto& prefix = script.prefixes[static_cast<std::size_t>(state->prefix)];
  if (t + 1 < std::ssize(prefix)) return prefix[static_cast<std::size_t>(t + 1)];
  if (state->forced >= 0) {
    const auto& header = script.headers[static_cast<std::size_t>(state->header)];
    const int32_t token = header[static_cast<std::size_t>(state->forced++)];
    if (state->forced == std::ssize(header)) {
      state->forced = -1;
      state->header = static_cast<int32_t>((state->header + 1) % std::ssize(script.headers));
    }
    return token;
  }
  const uint64_t key = mix(row_key(sampling, row) + static_cast<uint64_t>(t + 1));
  const int32_t token = sample(sampling, logits, key);
  if (token == script.end && !script.headers.empty()) state->forced = 0;
  return token;
}

}  // namespace crumb::quant::train
