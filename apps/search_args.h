// What the searches of `crumb search` share, and the searches themselves.
#pragma once
#include <cstdint>
#include <string>

#include "apps/verbs.h"
#include "models/source.h"
#include "quant/calibration.h"

namespace crumb::apps {

int search_emq(Context& context);
int search_apq(Context& context);
int search_qvlm(Context& context);

// Throws IoError if `path` cannot be written when the work is done: its folder is missing or not
// writable. Nothing for an empty path.
void require_writable(const std::string& path);

// Windows of one text, front to back, in two parts, and the hash of all.
struct TwoTexts {
  quant::CalibrationWindows first, rest;
  std::string hash;
};
// `first` windows of `length` tokens of the text at `path` (empty: the default corpus), and at most
// `rest` that follow. Throws Error(kUsage) if none follow; what make_corpus() throws.
TwoTexts read_two_texts(const models::SourceModel& source, const std::string& path, int64_t first,
                        int64_t rest, int64_t length);

}  // namespace crumb::apps
