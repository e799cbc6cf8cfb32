#include "apps/errors.h"

#include <csignal>
#include <new>
#include <stdexcept>

#include "apps/output.h"
#include "apps/signals.h"
#include "engine/progress.h"
#include "models/errors.h"
#include "tokenizer/chat_template.h"

namespace crumb::apps {
namespace {

const char* code_name(ExitCode code) {
  switch (code) {
    case ExitCode::kOk:
      return "ok";
    case ExitCode::kUsage:
      return "usage";
    case ExitCode::kBadFile:
      return "bad_file";
    case ExitCode::kIo:
      return "io";
    case ExitCode::kMemory:
      return "limit";
    case ExitCode::kNumeric:
      return "numeric";
    case ExitCode::kGate:
      return "gate";
    case ExitCode::kCpu:
      return "cpu";
    case ExitCode::kInternal:
      break;
  }
  return "internal";
}

Failure make(ExitCode code, std::string message, std::string hint = {}) {
  return {static_cast<int>(code), code_name(code), std::move(message), std::move(hint), false};
}

Failure interrupted(int number) { return {128 + number, "interrupted", "interrupted", {}, false}; }

}  // namespace

Failure describe(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& e) {
    return make(e.code(), e.what(), e.hint());
  } catch (const tokenizer::TemplateError& e) {
    return make(
        ExitCode::kBadFile,
        fmt::format("chat template: {} (line {}, column {})", e.what(), e.line(), e.column()),
        "crumb run --raw uses the model without its template");
  } catch (const std::bad_alloc&) {
    return make(ExitCode::kMemory, "out of memory", "a smaller --ctx-size or model needs less");
  } catch (const Stopped& stopped) {
    return interrupted(stopped.number);
  } catch (const Interrupted&) {
    return interrupted(SIGINT);
  } catch (const BrokenPipe&) {
    return {static_cast<int>(ExitCode::kIo), "io", "nobody reads standard output", {}, true};
  } catch (const std::invalid_argument& e) {
    return make(ExitCode::kBadFile, e.what());
  } catch (const std::exception& e) {
    return make(ExitCode::kInternal, std::string("internal: ") + e.what(), "please report this");
  } catch (...) {
    return make(ExitCode::kInternal, "internal: unknown exception", "please report this");
  }
}

void report(const Failure& failure, bool json) {
  if (failure.quiet) return;
  std::string text = "crumb: error: " + one_line(failure.message) + "\n";
  if (!failure.hint.empty()) text += "hint: " + one_line(failure.hint) + "\n";
  write_stderr(text);
  if (!json) return;
  const Json object = {
      {"error", {{"code", failure.code}, {"message", failure.message}, {"hint", failure.hint}}}};
  try {
    write_stdout(to_text(object));
  } catch (...) {
    // The failure at hand is the one to report; its text is on stderr already.
  }
}

}  // namespace crumb::apps
