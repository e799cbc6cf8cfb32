#include "bench/eval/items.h"

#include <filesystem>
#include <utility>

#include "bench/eval/record.h"
#include "models/content_hash.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/json.h"
#include "models/json_text.h"
#include "models/mapped_file.h"
#include "models/text.h"

namespace crumb::eval {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "crumb.eval.items/1";
constexpr std::size_t kMaxLineBytes = std::size_t{64} << 20;
constexpr int64_t kMost = int64_t{1} << 40;

std::string hash_of(std::string_view text) {
  return models::content_hash({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

std::string line_of(const ItemResult& item) {
  Json json = {{"id", item.id}, {"prompt", item.prompt}};
  if (!item.choices.empty()) {
    Json log_p = Json::array(), tokens = Json::array(), greedy = Json::array();
    for (const Likelihood& one : item.choices) {
      log_p.push_back(one.log_p);
      tokens.push_back(one.tokens);
      greedy.push_back(one.greedy ? 1 : 0);
    }
    json["log_p"] = log_p;
    json["tokens"] = tokens;
    json["greedy"] = greedy;
  } else {
    Json texts = Json::array(), tokens = Json::array(), reasons = Json::array();
    for (const Answer& one : item.answers) {
      texts.push_back(one.text);
      tokens.push_back(one.tokens);
      reasons.push_back(static_cast<int>(one.reason));
    }
    json["texts"] = texts;
    json["tokens"] = tokens;
    json["reasons"] = reasons;
  }
  return models::json_dump(json) + "\n";
}

std::vector<double> numbers(const nlohmann::json& json, const char* field,
                            const models::JsonPlace& place) {
  std::vector<double> all;
  const auto found = json.find(field);
  if (found == json.end() || !found->is_array())
    models::json_fail(place, field, "an array", "none");
  for (const auto& one : *found) {
    if (!one.is_number()) models::json_fail(place, field, "numbers", one.type_name());
    all.push_back(one.get<double>());
  }
  return all;
}

ItemResult item_of(std::string_view line, const std::string& path, int64_t number) {
  const std::string where = "line " + std::to_string(number);
  const models::JsonPlace place{path, where};
  const auto json = models::parse_json_object(line, place, kMaxLineBytes);
  const Record record(line, path, number);
  ItemResult item;
  item.id = record.id();
  item.prompt = record.text("prompt");
  const auto tokens = record.integers("tokens", 0, kMost);
  const auto same_length = [&](std::size_t n, const char* field) {
    if (n != tokens.size() || n == 0)
      models::json_fail(place, field, std::to_string(tokens.size()) + " values, at least one",
                        std::to_string(n));
  };
  if (record.has("log_p")) {
    const auto log_p = numbers(json, "log_p", place);
    const auto greedy = record.integers("greedy", 0, 1);
    same_length(log_p.size(), "log_p");
    same_length(greedy.size(), "greedy");
    for (std::size_t i = 0; i < log_p.size(); ++i)
      item.choices.push_back({log_p[i], tokens[i], greedy[i] == 1});
    return item;
  }
  const auto texts = record.texts("texts");
  const auto reasons =
      record.integers("reasons", 0, static_cast<int64_t>(FinishReason::kCancelled));
  same_length(texts.size(), "texts");
  same_length(reasons.size(), "reasons");
  for (std::size_t i = 0; i < texts.size(); ++i)
    item.answers.push_back({texts[i], static_cast<FinishReason>(reasons[i]), tokens[i]});
  return item;
}

}  // namespace

std::string prompt_hash(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += std::to_string(part.size()) + ":" + part;
  return hash_of(all).substr(0, 16);
}

ItemCache::ItemCache(const std::string& folder, std::string_view task, const std::string& key,
                     std::chrono::milliseconds interval)
    : key_(key), interval_(interval), saved_(std::chrono::steady_clock::now()) {
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw IoError("cannot make the folder " + folder + ": " + error.message());
  path_ = (fs::path(folder) / (std::string(task) + "-" + hash_of(key).substr(0, 16) + ".jsonl"))
              .string();
  if (!fs::exists(path_, error)) return;
  try {
    read();
  } catch (const FormatError& damaged) {
    items_.clear();
    problem_ = damaged.what();
  }
}

void ItemCache::read() {
  const models::MappedFile file(path_);
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  for (int64_t number = 1; !rest.empty() || number == 1; ++number) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (number > 1) {
      ItemResult item = item_of(line, path_, number);
      std::string id = item.id;
      items_.insert_or_assign(std::move(id), std::move(item));
      continue;
    }
    const models::JsonPlace place{path_, "line 1"};
    const auto json = models::parse_json_object(line, place, kMaxLineBytes);
    if (models::json_string(json, "schema", place) != kSchema)
      models::json_fail(place, "schema", kSchema, "another");
    if (models::json_string(json, "key", place) != key_)
      models::json_fail(place, "key", "the key of this run", "another");
  }
}

const ItemResult* ItemCache::find(const std::string& id, const std::string& prompt) const {
  const auto found = items_.find(id);
  return found == items_.end() || found->second.prompt != prompt ? nullptr : &found->second;
}

void ItemCache::add(ItemResult result) {
  std::string id = result.id;
  items_.insert_or_assign(std::move(id), std::move(result));
  changed_ = true;
  if (std::chrono::steady_clock::now() - saved_ >= interval_) save();
}

void ItemCache::save() {
  if (path_.empty() || !changed_) return;
  std::string text = models::json_dump(Json{{"schema", kSchema}, {"key", key_}}) + "\n";
  for (const auto& [id, item] : items_) text += line_of(item);
  models::write_file(path_, text);
  changed_ = false;
  saved_ = std::chrono::steady_clock::now();
}

}  // namespace crumb::eval
