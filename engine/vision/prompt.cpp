#include "engine/vision/prompt.h"

#include <algorithm>

#include "models/errors.h"
#include "models/json.h"
#include "models/vision.h"

namespace crumb::vision {
namespace {

using tokenizer::Segment;
using Segments = std::vector<Segment>;

// Stands for an image in the text of a template that knows none. U+FDD0 is no character: a text
// that has it makes more marks than there are images, which is refused.
constexpr std::string_view kMark = "\xef\xb7\x90";

std::string_view image_text(const Engine& engine) {
  const auto& vision = engine.config().vision;
  return vision ? std::string_view(vision->image_text) : std::string_view();
}

// The texts between images: cut at marks, or where the template itself wrote an image's text.
std::vector<Segments> cut_at_images(std::span<const Segment> prompt, std::string_view written) {
  const bool by_mark = written.empty();
  const std::string_view mark = by_mark ? kMark : written;
  std::vector<Segments> pieces(1);
  for (const Segment& segment : prompt) {
    std::string_view rest = segment.text;
    while (by_mark || segment.literal) {
      const auto at = rest.find(mark);
      if (at == std::string_view::npos) break;
      pieces.back().push_back({std::string(rest.substr(0, at)), segment.literal});
      pieces.emplace_back();
      rest.remove_prefix(at + mark.size());
    }
    pieces.back().push_back({std::string(rest), segment.literal});
  }
  return pieces;
}

}  // namespace

nlohmann::ordered_json content_with_images(const Engine& engine, const std::string& text,
                                           int64_t images) {
  if (images == 0) return text;
  if (image_text(engine).empty()) {
    std::string marked;
    for (int64_t i = 0; i < images; ++i) marked += kMark;
    return marked + text;
  }
  auto parts = nlohmann::ordered_json::array();
  for (int64_t i = 0; i < images; ++i) parts.push_back({{"type", "image"}});
  parts.push_back({{"type", "text"}, {"text", text}});
  return parts;
}

std::vector<int32_t> encode_with_images(const Engine& engine, std::span<const Segment> prompt,
                                        int64_t images, tokenizer::EncodeReport* report) {
  const tokenizer::Tokenizer& tokenizer = engine.tokenizer();
  if (images == 0) return tokenizer.encode(prompt, report);
  if (!engine.config().vision)
    throw Error(ExitCode::kUsage, "the model cannot see images (" + engine.info().path + ")",
                "crumb inspect says whether a model has a vision tower");
  const models::VisionConfig& vision = *engine.config().vision;
  std::vector<Segments> pieces = cut_at_images(prompt, image_text(engine));
  if (std::ssize(pieces) != images + 1)
    throw FormatError("images and marks in the prompt differ (chat template: expected " +
                      std::to_string(images) + ", found " + std::to_string(pieces.size() - 1) +
                      ")");
  std::vector<int32_t> ids;
  int64_t dropped = 0;
  int32_t row = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    Segments& piece = pieces[i];
    const bool first = i == 0, last = i + 1 == pieces.size();
    if (!first && !vision.after.empty()) piece.insert(piece.begin(), {vision.after, true});
    if (!last && !vision.before.empty()) piece.push_back({vision.before, true});
    tokenizer::EncodeReport own;
    const auto text = tokenizer.encode(piece, &own);
    dropped += own.dropped_bytes;
    // The beginning of the text is said once.
    const bool again =
        !first && tokenizer.data().add_bos && !text.empty() && text.front() == tokenizer.data().bos;
    ids.insert(ids.end(), text.begin() + (again ? 1 : 0), text.end());
    for (int64_t n = last ? 0 : models::image_tokens(vision); n > 0; --n) ids.push_back(~row++);
  }
  if (report != nullptr) report->dropped_bytes = dropped;
  return ids;
}

std::size_t common_prefix(const PromptIds& a, const PromptIds& b, int64_t D) {
  std::size_t n = 0;
  for (; n < std::min(a.ids.size(), b.ids.size()) && a.ids[n] == b.ids[n]; ++n) {
    if (a.ids[n] >= 0) continue;
    const auto row = [&](const PromptIds& prompt) {
      return prompt.rows.subspan(static_cast<std::size_t>(~a.ids[n] * D),
                                 static_cast<std::size_t>(D));
    };
    if (!std::ranges::equal(row(a), row(b))) break;
  }
  return n;
}

}  // namespace crumb::vision
