// The questions of a benchmark: JSONL, one object a line with a unique "id".
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::eval {

// One line. Immutable, cheap to copy. Every getter throws FormatError naming file and line if the
// field is absent or of another type.
class Record {
 public:
  // FormatError: not an object, too deep, a key twice, not UTF-8, no text field "id" (prompts that
  // belong to a task, one each, may have "task" instead).
  Record(std::string_view line, const std::string& file, int64_t number);

  const std::string& id() const;
  bool has(const char* field) const;
  std::string text(const char* field) const;
  std::vector<std::string> texts(const char* field) const;
  int64_t integer(const char* field, int64_t low, int64_t high) const;
  // Each in [low, high].
  std::vector<int64_t> integers(const char* field, int64_t low, int64_t high) const;
  // A field that is itself an object.
  Record object(const char* field) const;
  // The field as JSON text, for what the others do not cover.
  std::string json(const char* field) const;

  [[noreturn]] void fail(const char* field, const std::string& expected,
                         const std::string& found) const;

 private:
  struct Content;
  explicit Record(std::shared_ptr<const Content> content);
  std::shared_ptr<const Content> content_;
};

// Blank lines are passed over. Throws IoError, FormatError (a line, an id that occurs twice, no
// record at all).
struct RecordFile {
  std::vector<Record> records;
  std::string hash;  // xxh3-128 of the file
};
RecordFile read_records(const std::string& path);

}  // namespace crumb::eval
