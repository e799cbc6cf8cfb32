// What a client sends: the head, however it is cut; what Beast and our rules make of it; the body
// as every endpoint reads it. An input is a whole request, or, behind a byte below 8, only a body.
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/system/error_code.hpp>

#include "apps/serve/api_request.h"
#include "apps/serve/head_policy.h"
#include "apps/serve/head_scan.h"
#include "apps/serve/tool_request.h"
#include "models/tiny_model.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace crumb;
using namespace crumb::serve;
namespace http = boost::beast::http;

struct Scanned {
  HeadScan::State state = HeadScan::State::kMore;
  std::size_t taken = 0;
  int status = 0;
  bool operator==(const Scanned&) const = default;
};

Scanned scan(std::string_view bytes, std::size_t piece, const Limits& limits) {
  HeadScan head(limits);
  Scanned out;
  while (out.taken < bytes.size() && out.state == HeadScan::State::kMore) {
    std::size_t taken = 0;
    const std::string_view next = bytes.substr(out.taken, piece);
    out.state = head.push(next, taken);
    if (taken > next.size()) fuzz::finding("more was taken than there was");
    if (taken == 0 && out.state == HeadScan::State::kMore) fuzz::finding("nothing was taken");
    out.taken += taken;
  }
  if (out.state == HeadScan::State::kRefused) {
    out.status = head.status();
    if (out.status < 400 || out.status > 599) fuzz::finding("a refusal without a status");
    out.taken = 0;  // where it stopped is of no interest
  }
  return out;
}

ServedModel served_model() {
  auto source = models::tiny_model();
  ServedModel model;
  LoadOptions load;
  load.pin = false;
  load.threads = 1;
  model.engine = Engine::from_source(source, load);
  model.id = "tiny";
  model.prompt.emplace(model.engine);
  model.context = 256;
  model.slots = 4;
  return model;
}

void check(const std::vector<Job>& jobs, const ServedModel& model) {
  if (jobs.empty()) fuzz::finding("a request without work");
  for (const Job& job : jobs) {
    if (job.prompt.empty() || std::ssize(job.prompt) > model.context)
      fuzz::finding("a prompt of a length that no slot takes");
    for (const int32_t id : job.prompt)
      if (id < 0 || id >= model.engine->config().vocab) fuzz::finding("an id out of range");
    validate(job.sampling);
  }
}

void read_body(std::string_view text, int endpoint, const ServedModel& model,
               const Limits& limits) {
  try {
    const Json body = parse_body(text, limits);
    if (endpoint == 0) check(read_chat_request(body, model, limits).jobs, model);
    if (endpoint == 1) check(read_completion_request(body, model, limits).jobs, model);
    if (endpoint == 2) check(read_embedding_request(body, model, limits).jobs, model);
  } catch (const ApiError& error) {
    if (error.status < 400 || error.status > 499)
      fuzz::finding("not the client's: " + error.message);
    const Json answer = Json::parse(error.body(), nullptr, false);
    if (answer.is_discarded() || error.message.empty()) fuzz::finding("an error that says nothing");
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  static const ServedModel model = served_model();
  static const Limits limits = [] {
    Limits small;
    small.body_bytes = 4096;
    return small;
  }();
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  if (!all.empty() && all[0] >= 0 && all[0] < 8) {
    for (int endpoint = 0; endpoint < 3; ++endpoint)
      read_body(all.substr(1), endpoint, model, limits);
    return 0;
  }
  const Scanned whole = scan(all, size, limits);
  for (const std::size_t piece : {1, 7})
    if (scan(all, piece, limits) != whole) fuzz::finding("a head depends on how it is cut");
  if (whole.state != HeadScan::State::kComplete) return 0;

  http::request_parser<http::string_body> parser;
  parser.header_limit(static_cast<uint32_t>(whole.taken) + 1);
  parser.body_limit(static_cast<uint64_t>(limits.body_bytes));
  boost::system::error_code error;
  parser.put(boost::asio::buffer(all.data(), whole.taken), error);
  if ((error && error != http::error::need_more) || !parser.is_header_done()) return 0;
  const HeadVerdict verdict = judge_head(parser.get());
  if (verdict.status != 0 && (verdict.status < 400 || verdict.cause.empty()))
    fuzz::finding("a verdict without a cause");
  if (verdict.status != 0) return 0;
  parser.eager(true);
  for (std::size_t at = whole.taken; at < size && !parser.is_done() && !error;) {
    const std::size_t used = parser.put(boost::asio::buffer(all.data() + at, size - at), error);
    if (used == 0) break;
    at += used;
  }
  if (parser.is_done()) read_body(parser.get().body(), 0, model, limits);
  return 0;
}
