#include "apps/chat_sessions.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "apps/line_editor.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

fs::path folder() {
  const std::string history = history_path();
  return history.empty() ? fs::path() : fs::path(history).parent_path() / "sessions";
}

}  // namespace

std::string new_session_path() {
  const fs::path place = folder();
  if (place.empty()) return {};
  std::error_code error;
  if (fs::create_directories(place, error)) fs::permissions(place, fs::perms::owner_all, error);
  if (!fs::is_directory(place, error)) return {};
  const std::string day = fmt::format("{:%Y-%m-%d}", fmt::localtime(std::time(nullptr)));
  for (int n = 1;; ++n) {
    const fs::path path = place / fmt::format("{}-{}.json", day, n);
    if (!fs::exists(path, error)) return path.string();
  }
}

std::string find_session(const std::string& name) {
  const fs::path place = folder();
  std::error_code error;
  fs::path found;
  fs::file_time_type newest;
  if (!place.empty())
    for (fs::directory_iterator it(place, error), end; !error && it != end; it.increment(error)) {
      if (it->path().extension() != ".json") continue;
      const auto time = it->last_write_time(error);
      if (name == "last" ? found.empty() || time > newest : it->path().stem() == name) {
        found = it->path();
        newest = time;
      }
    }
  if (found.empty())
    throw Error(ExitCode::kUsage, fmt::format("no such conversation (--resume {}: looked in {})",
                                              name, place.empty() ? "no folder" : place.string()));
  return found.string();
}

}  // namespace crumb::apps
