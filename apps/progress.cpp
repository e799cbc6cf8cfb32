#include "apps/progress.h"

#include <unistd.h>

#include <algorithm>

#include "apps/output.h"
#include "apps/terminal.h"

namespace crumb::apps {
namespace {

constexpr int kBarCells = 20;
constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kLine{10};

std::string bar_text(double share) {
  const int full = static_cast<int>(share * kBarCells);
  std::string bar;
  for (int i = 0; i < kBarCells; ++i) bar += i < full ? "█" : "░";
  return bar;
}

}  // namespace

ProgressBar::ProgressBar(bool enabled, Signals& signals)
    : enabled_(enabled), terminal_(is_terminal(STDERR_FILENO)), signals_(signals) {}

ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::clear() {
  if (drawn_) write_stderr("\r\033[K");
  drawn_ = false;
}

bool ProgressBar::update(const Progress& progress) {
  const bool go_on = signals_.pending() == 0;
  const auto now = Clock::now();
  if (progress.stage != stage_) {
    stage_ = progress.stage;
    stage_start_ = now;
    last_ = now;
    if (terminal_) last_ -= kRedraw;
  }
  const auto pause = terminal_ ? std::chrono::duration_cast<Clock::duration>(kRedraw) : kLine;
  if (!enabled_ || progress.total <= 0 || now - last_ < pause) return go_on;
  last_ = now;
  const double share = std::clamp(
      static_cast<double>(progress.done) / static_cast<double>(progress.total), 0.0, 1.0);
  const double elapsed = std::chrono::duration<double>(now - stage_start_).count();
  const std::string eta =
      share > 0 ? human_seconds(elapsed * (1 - share) / share) : std::string("?");
  std::string item(progress.item);
  const auto room = static_cast<std::size_t>(std::max(0, terminal_columns(STDERR_FILENO) - 60));
  if (item.size() > room) item = item.substr(item.size() - room);
  if (terminal_) {
    note("\r\033[K{} {} {}/{}  eta {}  {}", stage_, bar_text(share), progress.done, progress.total,
         eta, item);
    drawn_ = true;
  } else {
    note("{} {}/{} eta {}\n", stage_, progress.done, progress.total, eta);
  }
  return go_on;
}

ProgressFn ProgressBar::function() {
  return [this](const Progress& progress) { return update(progress); };
}

}  // namespace crumb::apps
