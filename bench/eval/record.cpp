#include "bench/eval/record.h"

#include <set>

#include "models/content_hash.h"
#include "models/errors.h"
#include "models/json.h"
#include "models/json_text.h"
#include "models/mapped_file.h"
#include "models/text.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxLineBytes = std::size_t{4} << 20;

}  // namespace

struct Record::Content {
  std::string file, place, id;
  Json fields;

  models::JsonPlace where() const { return {file, place}; }
  const Json& member(const char* field) const {
    const auto found = fields.find(field);
    if (found == fields.end()) models::json_fail(where(), field, "a value", "nothing");
    return *found;
  }
  const Json& array(const char* field) const {
    const Json& value = member(field);
    if (!value.is_array()) models::json_fail(where(), field, "an array", value.type_name());
    return value;
  }
};

Record::Record(std::string_view line, const std::string& file, int64_t number) {
  auto content = std::make_shared<Content>();
  content->file = file;
  content->place = "line " + std::to_string(number);
  content->fields = models::parse_json_object(line, content->where(), kMaxLineBytes);
  const char* name =
      content->fields.contains("id") || !content->fields.contains("task") ? "id" : "task";
  content->id = models::json_string(content->fields, name, content->where());
  content_ = std::move(content);
}

Record::Record(std::shared_ptr<const Content> content) : content_(std::move(content)) {}

const std::string& Record::id() const { return content_->id; }
bool Record::has(const char* field) const { return content_->fields.contains(field); }

std::string Record::text(const char* field) const {
  return models::json_string(content_->fields, field, content_->where());
}

std::vector<std::string> Record::texts(const char* field) const {
  std::vector<std::string> all;
  for (const Json& one : content_->array(field)) {
    if (!one.is_string()) fail(field, "texts", one.type_name());
    all.push_back(one.get<std::string>());
  }
  return all;
}

int64_t Record::integer(const char* field, int64_t low, int64_t high) const {
  return models::json_int(content_->fields, field, low, high, content_->where());
}

std::vector<int64_t> Record::integers(const char* field, int64_t low, int64_t high) const {
  std::vector<int64_t> all;
  for (const Json& one : content_->array(field))
    all.push_back(models::json_int(Json{{field, one}}, field, low, high, content_->where()));
  return all;
}

Record Record::object(const char* field) const {
  const Json& value = content_->member(field);
  if (!value.is_object()) fail(field, "an object", value.type_name());
  auto inner = std::make_shared<Content>();
  inner->file = content_->file;
  inner->place = content_->place + ", field " + field;
  inner->id = content_->id;
  inner->fields = value;
  return Record(std::move(inner));
}

std::string Record::json(const char* field) const {
  return models::json_dump(content_->member(field));
}

void Record::fail(const char* field, const std::string& expected, const std::string& found) const {
  models::json_fail(content_->where(), field, expected, found);
}

RecordFile read_records(const std::string& path) {
  const models::MappedFile file(path);
  RecordFile result;
  result.hash = models::content_hash(file.bytes());
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  std::set<std::string> ids;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    result.records.emplace_back(line, path, number);
    const std::string& id = result.records.back().id();
    if (!ids.insert(id).second)
      result.records.back().fail("id", "each id once", models::printable(id) + " again");
  }
  if (result.records.empty())
    throw FormatError("no records (" + path + ": expected one JSON object a line, found none)");
  return result;
}

}  // namespace crumb::eval
