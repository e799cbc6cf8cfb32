// crumb search WHAT: emq (search_emq.cpp), apq (search_apq.cpp) or qvlm (search_qvlm.cpp).
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "apps/args.h"
#include "apps/output.h"
#include "apps/search_args.h"
#include "models/errors.h"
#include "quant/corpus.h"

namespace crumb::apps {
namespace {

constexpr struct {
  std::string_view name;
  int (*run)(Context& context);
} kSearches[] = {{"emq", search_emq}, {"apq", search_apq}, {"qvlm", search_qvlm}};

constexpr const char* kUsage =
    "crumb search WHAT [options]: searches before quantizing\n"
    "  emq  evolve a formula that tells what widths cost\n"
    "  apq  layers, sizes and widths together, under a limit of time\n"
    "  qvlm clips of weights and inputs, jointly where they depend on each other\n"
    "crumb search WHAT --help says more.\n";

}  // namespace

void require_writable(const std::string& path) {
  if (path.empty()) return;
  const auto folder = std::filesystem::path(path).parent_path();
  const std::string at = folder.empty() ? "." : folder.string();
  if (::access(at.c_str(), W_OK | X_OK) == 0) return;
  throw IoError("cannot write (" + path + ": " + std::generic_category().message(errno) + ")");
}

TwoTexts read_two_texts(const models::SourceModel& source, const std::string& path, int64_t first,
                        int64_t rest, int64_t length) {
  quant::CorpusOptions options;
  options.path = path;
  options.windows = first + rest;
  options.S = length;
  const quant::Corpus corpus = quant::make_corpus(source, options);
  const int64_t found = corpus.windows.count();
  if (found <= first)
    throw Error(ExitCode::kUsage, fmt::format("too little text (expected more than {} windows of "
                                              "{} tokens, found {})",
                                              first, length, found));
  const auto& ids = corpus.windows.ids;
  const auto cut = ids.begin() + static_cast<std::ptrdiff_t>(first * length);
  return {{length, {ids.begin(), cut}}, {length, {cut, ids.end()}}, corpus.hash};
}

int search(Context& context) {
  if (context.table != nullptr) {
    const std::string program = context.program;
    for (const auto& one : kSearches) {
      context.program = program + " " + std::string(one.name);
      one.run(context);
    }
    return 0;
  }
  const std::string name = context.args.empty() ? "" : context.args.front();
  if (name == "--help" || name == "-h") {
    write_stdout(kUsage);
    return 0;
  }
  const auto* found = std::ranges::find(kSearches, name, [](const auto& s) { return s.name; });
  if (found == std::end(kSearches))
    throw Error(ExitCode::kUsage,
                name.empty() ? "no search given (expected emq, apq or qvlm)"
                             : "unknown search '" + name + "' (expected emq, apq or qvlm)",
                "crumb search --help");
  context.program += " " + name;
  context.args.erase(context.args.begin());
  return found->run(context);
}

}  // namespace crumb::apps
