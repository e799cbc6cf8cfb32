// json.dumps() for the filter tojson.
#include <algorithm>
#include <cmath>

#include "tokenizer/jinja_value.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, std::size_t limit) : style_(style), limit_(limit) {}

  std::string write(const Value& value) {
    append(value, 0);
    return std::move(out_);
  }

 private:
  void append(const Value& value, int depth) {
    // Indents multiply with the depth, so the size is not bounded by the value's.
    if (out_.size() > limit_) fail("tojson: more than " + std::to_string(limit_) + " bytes");
    if (const Text* text = value.text()) {
      append_string(text->bytes());
    } else if (const Dict* dict = value.dict()) {
      append_dict(*dict, depth);
    } else if (const Sequence* list = value.sequence(); list && list->flavor <= Flavor::kTuple) {
      append_list(list->items, depth);
    } else {
      out_ += scalar(value);
    }
  }

  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (const bool* flag = value.get<bool>()) return *flag ? "true" : "false";
    if (const int64_t* integer = value.get<int64_t>()) return std::to_string(*integer);
    const double* real = value.get<double>();
    if (real == nullptr) fail("tojson: a " + type_name(value) + " is not JSON serializable");
    if (std::isnan(*real)) return "NaN";
    if (std::isinf(*real)) return *real > 0 ? "Infinity" : "-Infinity";
    return float_repr(*real);
  }

  void append_escape(uint32_t unit) {
    constexpr char kHex[] = "0123456789abcdef";
    out_ += "\\u";
    for (int k = 3; k >= 0; --k) out_ += kHex[unit >> (4 * k) & 15];
  }

  void append_string(std::string_view text) {
    constexpr std::string_view kSpecial = "\"\\\n\r\t\b\f", kLetters = "\"\\nrtbf";
    out_ += '"';
    for (std::size_t i = 0; i < text.size();) {
      const CodePoint c = code_point_at(text, i);
      const auto piece = text.substr(i, static_cast<std::size_t>(c.length));
      i += piece.size();
      if (const std::size_t k = kSpecial.find(piece[0]); k != std::string_view::npos) {
        out_ += '\\';
        out_ += kLetters[k];
      } else if (c.value < 0x20) {
        append_escape(c.value);
      } else if (!style_.ensure_ascii || c.value < 0x80) {
        out_ += piece;
      } else if (c.value < 0x10000) {
        append_escape(c.value);
      } else if (c.value > 0x10FFFF) {
        fail("tojson: a string is not valid UTF-8");
      } else {
        append_escape(0xD800 + ((c.value - 0x10000) >> 10));
        append_escape(0xDC00 + ((c.value - 0x10000) & 0x3FF));
      }
    }
    out_ += '"';
  }

  void new_line(int depth) {
    if (!style_.has_indent) return;
    out_ += '\n';
    for (int i = 0; i < depth; ++i) out_ += style_.indent;
  }

  void separate(std::size_t i, int depth) {
    if (i > 0) out_ += style_.item_separator;
    new_line(depth + 1);
  }

  void append_list(const Values& items, int depth) {
    out_ += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      separate(i, depth);
      append(items[i], depth + 1);
    }
    if (!items.empty()) new_line(depth);
    out_ += ']';
  }

  void append_dict(const Dict& dict, int depth) {
    std::vector<const std::pair<Value, Value>*> entries;
    entries.reserve(dict.entries.size());
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return less(a->first, b->first); });
    }
    out_ += '{';
    for (std::size_t i = 0; i < entries.size(); ++i) {
      separate(i, depth);
      const Value& key = entries[i]->first;
      if (key.sequence() != nullptr) fail("tojson: keys must be str, int, float, bool or None");
      append_string(key.text() != nullptr ? key.text()->bytes() : scalar(key));
      out_ += style_.key_separator;
      append(entries[i]->second, depth + 1);
    }
    if (!entries.empty()) new_line(depth);
    out_ += '}';
  }

  const JsonStyle& style_;
  const std::size_t limit_;
  std::string out_;
};

}  // namespace

Text to_json(const Value& value, const JsonStyle& style, std::size_t limit) {
  const bool literal = value.literal();
  return Text(JsonWriter(style, limit).write(value), literal);
}

}  // namespace crumb::tokenizer::jinja
