#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <string_view>

#include "bench/eval/perplexity.h"
#include "bench/eval/scoring.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/json.h"
#include "models/mapped_file.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxLineBytes = std::size_t{4} << 20;

struct Line {
  std::string id;
  std::vector<int32_t> ids;
};

// Where a line is, for messages.
struct Place {
  const std::string& file;
  int64_t line = 0;
};

[[noreturn]] void fail(const Place& place, const std::string& expected, const std::string& found) {
  throw FormatError("invalid line (" + place.file + " line " + std::to_string(place.line) +
                    ": expected " + expected + ", found " + found + ")");
}

std::vector<int32_t> parse_ids(const Json& value, const models::ModelConfig& config,
                               const Place& place) {
  if (!value.is_array()) fail(place, "\"ids\" to be an array", value.type_name());
  if (value.empty() || std::ssize(value) > config.context)
    fail(place, "1.." + std::to_string(config.context) + " ids, the model's context",
         std::to_string(value.size()));
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& one : value) {
    // Unsigned covers every integer >= 0 that JSON can write without an exponent.
    if (!one.is_number_unsigned() || one.get<uint64_t>() >= static_cast<uint64_t>(config.vocab))
      fail(place, "token ids 0.." + std::to_string(config.vocab - 1),
           one.is_number() ? one.dump() : one.type_name());
    ids.push_back(static_cast<int32_t>(one.get<uint64_t>()));
  }
  return ids;
}

Line parse_line(std::string_view text, const models::ModelConfig& config, const Place& place) {
  if (text.size() > kMaxLineBytes)
    fail(place, "at most " + std::to_string(kMaxLineBytes) + " bytes", std::to_string(text.size()));
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) fail(place, "a JSON object", "text that is not JSON");
  if (!json.is_object()) fail(place, "a JSON object", json.type_name());
  const auto id = json.find("id");
  if (id == json.end()) fail(place, "a field \"id\"", "none");
  if (!id->is_string()) fail(place, "\"id\" to be a string", id->type_name());
  const auto ids = json.find("ids");
  if (ids == json.end()) fail(place, "a field \"ids\"", "none");
  return {id->get<std::string>(), parse_ids(*ids, config, place)};
}

std::vector<Line> read_lines(const std::string& path, const models::ModelConfig& config) {
  const models::MappedFile file(path);
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  std::vector<Line> lines;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = rest.find('\n');
    lines.push_back(parse_line(rest.substr(0, end), config, {path, number}));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  return lines;
}

// Indices of the `top` largest logits, the lower index first on ties. order [V] is scratch.
std::span<const int32_t> largest(std::span<const float> logits, std::size_t top,
                                 std::vector<int32_t>& order) {
  order.resize(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)];
    const float y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(top), order.end(),
                    before);
  return std::span(order).first(top);
}

// One output line, its arrays filled position by position.
class LineText {
 public:
  void add(std::span<const float> logits, std::size_t top) {
    const auto ids = largest(logits, top, order_);
    fmt::format_to(std::back_inserter(ids_), "{}[", separator());
    fmt::format_to(std::back_inserter(logits_), "{}[", separator());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::string_view comma = i == 0 ? "" : ",";
      fmt::format_to(std::back_inserter(ids_), "{}{}", comma, ids[i]);
      fmt::format_to(std::back_inserter(logits_), "{}{}", comma,
                     logits[static_cast<std::size_t>(ids[i])]);
    }
    ids_ += ']';
    logits_ += ']';
    last_lse_ = log_sum_exp(logits);
    fmt::format_to(std::back_inserter(lse_), "{}{}", separator(), last_lse_);
    ++positions_;
  }
  // -log P of the token that follows the position just added.
  void add_target(std::span<const float> logits, int32_t target) {
    nll_ += last_lse_ - logits[static_cast<std::size_t>(target)];
  }
  std::string finish(const std::string& id) const {
    const std::string mean =
        positions_ > 1 ? fmt::format("{}", nll_ / static_cast<double>(positions_ - 1)) : "null";
    return fmt::format(
        "{{\"id\":{},\"top_ids\":[{}],\"top_logits\":[{}],\"lse\":[{}],\"mean_nll\":{}}}\n",
        Json(id).dump(), ids_, logits_, lse_, mean);
  }

 private:
  std::string_view separator() const { return positions_ == 0 ? "" : ","; }

  std::string ids_, logits_, lse_;
  std::vector<int32_t> order_;
  double last_lse_ = 0, nll_ = 0;
  int64_t positions_ = 0;
};

// text(session, line) of every line, from an empty cache, into one file.
template <class TextOf>
void write_lines(const Engine& engine, const std::string& input_path,
                 const std::string& output_path, kernels::KvType kv, const ProgressFn& progress,
                 TextOf&& text_of) {
  const std::vector<Line> lines = read_lines(input_path, engine.config());
  models::FileWriter writer(output_path);
  SessionOptions options;
  options.kv = kv;
  options.context = 1;
  for (const Line& line : lines) options.context = std::max(options.context, std::ssize(line.ids));
  const auto session = engine.make_session(options);
  int64_t done = 0;
  const auto tell = [&](std::string_view item) {
    if (progress && !progress({"logits", item, done, std::ssize(lines)})) throw Interrupted{};
  };
  for (const Line& line : lines) {
    tell(line.id);
    session->truncate(0);
    writer.write(text_of(*session, line));
    ++done;
  }
  tell({});
  writer.commit();
}

}  // namespace

void write_logits(const Engine& engine, const std::string& input_path,
                  const std::string& output_path, int top, kernels::KvType kv,
                  const ProgressFn& progress) {
  const models::ModelConfig& config = engine.config();
  if (top < 1 || top > config.vocab)
    throw Error(ExitCode::kUsage, "number of top logits out of range (expected 1.." +
                                      std::to_string(config.vocab) + ", found " +
                                      std::to_string(top) + ")");
  write_lines(engine, input_path, output_path, kv, progress,
              [&](Session& session, const Line& line) {
                LineText text;
                session.forward_all(line.ids, [&](int64_t t, std::span<const float> logits) {
                  text.add(logits, static_cast<std::size_t>(top));
                  if (t + 1 < std::ssize(line.ids))
                    text.add_target(logits, line.ids[static_cast<std::size_t>(t + 1)]);
                });
                return text.finish(line.id);
              });
}

void write_log_probabilities(const Engine& engine, const std::string& input_path,
                             const std::string& output_path, kernels::KvType kv,
                             const ProgressFn& progress) {
  write_lines(engine, input_path, output_path, kv, progress,
              [&](Session& session, const Line& line) {
                std::string log_p, greedy;
                session.forward_all(line.ids, [&](int64_t t, std::span<const float> logits) {
                  if (t + 1 == std::ssize(line.ids)) return;
                  const int32_t target = line.ids[static_cast<std::size_t>(t + 1)];
                  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
                  const std::string_view comma = t == 0 ? "" : ",";
                  fmt::format_to(std::back_inserter(log_p), "{}{}", comma,
                                 -negative_log_likelihood(logits, target));
                  fmt::format_to(std::back_inserter(greedy), "{}{}", comma, best == target ? 1 : 0);
                });
                return fmt::format("{{\"id\":{},\"log_p\":[{}],\"greedy\":[{}]}}\n",
                                   Json(line.id).dump(), log_p, greedy);
              });
}

}  // namespace crumb::eval
