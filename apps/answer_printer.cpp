#include "apps/answer_printer.h"

#include "tokenizer/utf8.h"

namespace crumb::apps {
namespace {

constexpr std::string_view kFence = "```";
constexpr int kTab = 8;

struct Range {
  uint32_t first, last;
};
constexpr Range kCombining[] = {
    {0x300, 0x36f}, {0x200b, 0x200f}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}};
constexpr Range kWide[] = {{0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},
                           {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe30, 0xfe6f},
                           {0xff00, 0xff60},   {0xffe0, 0xffe6},   {0x1f300, 0x1f64f},
                           {0x1f680, 0x1f6ff}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};

template <std::size_t N>
bool within(const Range (&ranges)[N], uint32_t value) {
  for (const Range& range : ranges)
    if (value >= range.first && value <= range.last) return true;
  return false;
}

}  // namespace

int columns_of(uint32_t code_point) {
  if (within(kCombining, code_point)) return 0;
  return within(kWide, code_point) ? 2 : 1;
}

void AnswerPrinter::push(std::string_view piece) {
  for (std::size_t i = 0; i < piece.size();) {
    const auto point = tokenizer::code_point_at(piece, i);
    const std::string_view bytes = piece.substr(i, static_cast<std::size_t>(point.length));
    i += bytes.size();
    at_start_ = bytes == "\n";
    const bool space = bytes == " " || bytes == "\t";
    if (at_start_) {
      end_line();
      continue;
    }
    if (!space && line_head_.size() < kFence.size()) line_head_ += bytes;
    if (columns_ == 0 || code_) {
      out_ += bytes;
    } else if (!space) {
      word_ += bytes;
      word_columns_ += columns_of(point.value);
      // Between wide characters, which know no spaces, a line may end anywhere.
      if (columns_of(point.value) == 2) end_word();
    } else {
      end_word();
      const int wide = bytes == "\t" ? kTab - column_ % kTab : 1;
      if (column_ + wide > columns_) continue;  // the next word begins a line
      out_ += bytes;
      column_ += wide;
    }
  }
  give_out();
}

void AnswerPrinter::end_word() {
  if (word_.empty()) return;
  if (column_ > 0 && column_ + word_columns_ > columns_) {
    out_ += '\n';
    column_ = 0;
  }
  out_ += word_;
  column_ += word_columns_;
  // The terminal breaks a word that is longer than a line.
  if (column_ > columns_) column_ = (column_ - 1) % columns_ + 1;
  word_.clear();
  word_columns_ = 0;
}

void AnswerPrinter::end_line() {
  end_word();
  const bool fence = line_head_ == kFence;
  if (fence && styled_) {
    style(sink_.reset);
    styled_ = false;
  }
  out_ += '\n';
  column_ = 0;
  line_head_.clear();
  if (!fence) return;
  code_ = !code_;
  if (code_ && !sink_.code.empty()) {
    style(sink_.code);
    styled_ = true;
  }
}

void AnswerPrinter::finish() {
  end_word();
  if (styled_) style(sink_.reset);
  styled_ = false;
  give_out();
}

void AnswerPrinter::style(std::string_view sequence) {
  give_out();
  sink_.style(sequence);
}

// One write for all that a piece let out.
void AnswerPrinter::give_out() {
  if (!out_.empty()) sink_.text(out_);
  out_.clear();
}

}  // namespace crumb::apps
