// Calibration text: a file, or the small corpus written for this project, as windows of token ids.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/source.h"
#include "quant/calibration.h"

namespace crumb::quant {

struct ChatTurn {
  std::string role, content;
};
// Plain text, or a chat if `turns` is not empty.
struct CorpusDocument {
  std::string text;
  std::vector<ChatTurn> turns;
};

struct CorpusOptions {
  std::string path;      // plain text or JSONL of {"messages": [{"role", "content"}, ...]}
                         // or {"text"}; empty: the default corpus
  int64_t windows = 32;  // most windows
  int64_t S = 512;       // tokens of a window
  uint64_t seed = 1;     // order of the documents
  int64_t held_out = 0;  // most windows kept apart, after the others; an eighth of a short text
};

struct Corpus {
  CalibrationWindows windows;   // may be fewer than asked for: as many as the text fills
  CalibrationWindows held_out;  // text that quality is checked on
  std::string hash;             // windows_hash(windows), for the recipe
  int64_t documents = 0;
  int64_t tokens = 0;         // of all documents, used or not
  int64_t dropped_bytes = 0;  // bytes the vocabulary has no token for
};

// Documents are shuffled by the seed, chats rendered through the model's template, all joined and
// cut into windows. A text file is one document.
// Throws IoError; FormatError for JSONL that is none, naming the line, for a template that fails,
// and for text of less than one window.
Corpus make_corpus(const models::SourceModel& source, const CorpusOptions& options);

// JSONL if the first byte that is no space is '{'. `name` is for messages.
std::vector<CorpusDocument> parse_corpus(std::string_view bytes, const std::string& name);

// Original texts (prose, chats, code, lists) and `drills` generated documents of arithmetic,
// tables, dates and code, all drawn by the seed.
std::vector<CorpusDocument> default_corpus(uint64_t seed, int64_t drills);

}  // namespace crumb::quant
