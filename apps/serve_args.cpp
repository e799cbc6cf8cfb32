#include "apps/serve_args.h"

#include <fmt/format.h>

#include <boost/asio/ip/address.hpp>
#include <filesystem>

#include "apps/output.h"
#include "engine/memory.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxKeyFileBytes = 1 << 20;

struct LimitOption {
  const char* name;
  int64_t serve::Limits::*value;
  int64_t low, high;
  const char* help;
};
constexpr int64_t kDay = 86400;
constexpr LimitOption kLimits[] = {
    {"--max-request-line", &serve::Limits::request_line_bytes, 256, 1 << 20, "bytes (8192)"},
    {"--max-header-bytes", &serve::Limits::header_bytes, 512, 1 << 24, "bytes of a head (16384)"},
    {"--max-header-fields", &serve::Limits::header_fields, 8, 10000, "fields of a head (64)"},
    {"--max-body", &serve::Limits::body_bytes, 1024, int64_t{1} << 30, "bytes of a body (1048576)"},
    {"--header-timeout", &serve::Limits::header_seconds, 1, kDay, "seconds for a head (10)"},
    {"--body-timeout", &serve::Limits::body_seconds, 1, kDay, "seconds for a body (30)"},
    {"--idle-timeout", &serve::Limits::idle_seconds, 1, kDay, "seconds between requests (15)"},
    {"--max-requests", &serve::Limits::requests_per_connection, 1, 1 << 30,
     "requests of one connection (100)"},
    {"--max-connections", &serve::Limits::connections, 1, 1 << 16, "connections (256)"},
    {"--max-connections-per-peer", &serve::Limits::connections_per_peer, 1, 1 << 16,
     "connections of one address; loopback is not counted (32)"},
    {"--send-buffer", &serve::Limits::send_buffer_bytes, 1024, 1 << 30,
     "bytes a stream is ahead of its client (262144)"},
    {"--send-timeout", &serve::Limits::send_seconds, 1, kDay,
     "seconds a client may take nothing (30)"},
    {"--ping-interval", &serve::Limits::ping_seconds, 1, kDay,
     "seconds of silence in a stream (15)"},
    {"--max-json-depth", &serve::Limits::json_depth, 4, 1000, "levels of a body's JSON (64)"},
    {"--max-json-keys", &serve::Limits::json_keys, 16, 1 << 16, "keys of one object (1024)"},
    {"--max-messages", &serve::Limits::messages, 1, 1 << 20, "messages of a chat (4096)"},
    {"--max-prompts", &serve::Limits::prompts, 1, 4096, "texts of one request (128)"},
    {"--max-stops", &serve::Limits::stops, 1, 256, "stop texts (16)"},
    {"--queue", &serve::Limits::queue, 0, 1 << 20, "requests that may wait (64)"},
    {"--max-request-seconds", &serve::Limits::request_seconds, 0, kDay,
     "seconds of one answer, then it is cut (0: no limit)"},
    {"--shutdown-timeout", &serve::Limits::drain_seconds, 0, kDay,
     "seconds that answers may take after SIGTERM (30)"},
};

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

// Nobody else shall reach a server that asks for no key.
void check_bind(ServeArgs& serve) {
  boost::system::error_code error;
  if (serve.http.address == "localhost") serve.http.address = "127.0.0.1";
  const auto address = boost::asio::ip::make_address(serve.http.address, error);
  if (error)
    throw Error(ExitCode::kUsage,
                fmt::format("not an address (--host: expected an IPv4 or IPv6 address, found '{}')",
                            serve.http.address));
  if (!address.is_loopback() && serve.guard.keys.empty() && !serve.insecure)
    throw Error(
        ExitCode::kUsage,
        fmt::format("others could use this server without a key (--host {})", serve.http.address),
        "give one with --api-key-file FILE or CRUMB_API_KEY, or say --insecure-no-auth");
  // Clients name the address they were given; an unspecified one stands for names unknown here.
  if (!address.is_unspecified())
    serve.guard.hosts.push_back(address.is_v6() ? "[" + address.to_string() + "]"
                                                : address.to_string());
}

}  // namespace

bool parse_serve_args(Context& context, ServeArgs& serve) {
  Args args(context.program, "Serve a model over HTTP, as OpenAI's API.");
  std::string key_file;
  int64_t port = serve.http.port, slots = serve.scheduler.slots;
  bool no_cache = false;
  add_model(args, serve.model);
  add_session(args, serve.model);
  args.text("--host", serve.http.address, "ADDRESS", "address to listen on (127.0.0.1)");
  args.integer("--port", port, 0, 65535, "port, 0 for any free one (8080)");
  args.integer("--parallel", slots, 1, 256, "slots: texts written at a time (4; also -np)");
  args.integer("-b,--batch-size", serve.scheduler.chunk, 1, 2048,
               "tokens of prompts in one step (64)");
  args.flag("--no-prefix-cache", no_cache, "read every prompt from its first token");
  args.text("--alias", serve.alias, "NAME", "name of the model (default: its file's)");
  args.flag("--strict-model", serve.strict_model, "refuse requests for a model of another name");
  args.choice("--on-overflow", serve.on_overflow, {"error", "drop-oldest"},
              "of a prompt that leaves no room for an answer: refuse it, or leave out its oldest "
              "messages or tokens and say how many (error)");
  args.flag("--strict", serve.strict, "refuse requests with unknown fields");
  args.text("--api-key-file", key_file, "FILE",
            "keys, one a line, # comments (or CRUMB_API_KEY); then every request needs one");
  args.flag("--insecure-no-auth", serve.insecure, "let others in without a key");
  args.repeated("--allowed-host", "NAME", "a name this server is called by, may be repeated",
                [&](const std::string& s) { serve.guard.hosts.push_back(lower(s)); });
  args.repeated("--cors-origin", "ORIGIN", "a site whose pages may ask, may be repeated",
                [&](const std::string& s) { serve.guard.origins.push_back(lower(s)); });
  for (const LimitOption& limit : kLimits)
    args.integer(limit.name, serve.http.limits.*limit.value, limit.low, limit.high, limit.help);
  args.flag("--count-loopback", serve.http.limits.count_loopback,
            "count connections from this machine too");
  args.choice(
      "--sandbox", serve.sandbox, {"auto", "on", "off"},
      "no files but the model's, no programs, no connections out (auto: where the kernel can)");
  args.flag("-q,--quiet", serve.quiet, "no line for each request");
  args.example("crumb serve -m model.crumb --port 8080");
  args.example("crumb serve --host 0.0.0.0 --api-key-file keys.txt --allowed-host pi.local");
  if (!args.parse(context.args)) return false;
  serve.http.port = static_cast<uint16_t>(port);
  serve.scheduler.slots = static_cast<int>(slots);
  serve.scheduler.queue = serve.http.limits.queue;
  serve.scheduler.cache = !no_cache;
  if (!key_file.empty())
    serve.guard.keys = serve::keys_of(read_text(key_file, kMaxKeyFileBytes), key_file);
  else if (const auto key = environment("CRUMB_API_KEY"))
    serve.guard.keys = serve::keys_of(*key, "CRUMB_API_KEY");
  check_bind(serve);
  return true;
}

std::string model_stem(const std::string& path) {
  std::filesystem::path whole(path);
  if (whole.filename().empty()) whole = whole.parent_path();  // "folder/"
  std::string stem =
      std::filesystem::is_directory(whole) ? whole.filename().string() : whole.stem().string();
  for (char& c : stem)
    if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '.' &&
        c != '_' && c != '-')
      c = '-';
  return stem.empty() ? "model" : stem;
}

void require_serve_memory(const ServeArgs& serve, const Engine& engine) {
  SessionOptions session = session_options(serve.model);
  session.chunk = serve.scheduler.chunk + serve.scheduler.slots;
  const int64_t weights = engine.info().linear_bytes_per_token + engine.info().head_bytes_per_token;
  MemoryNeed need = memory_need(engine.config(), weights, session, 1, engine.thread_plan().threads);
  need.kv *= serve.scheduler.slots;  // the rest is shared
  require_memory(need.total(), system_memory(),
                 fmt::format("{} slots of {} tokens", serve.scheduler.slots,
                             session.context == 0 ? engine.config().context : session.context));
}

}  // namespace crumb::apps
