#include "apps/train_report.h"

#include <unistd.h>

#include "apps/output.h"
#include "apps/terminal.h"

namespace crumb::apps {
namespace {

using quant::train::TrainProgress;

constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kLine{10};

// "loss 0.5312 · KL 0.4021 · same top-1 71.2 % · 812 tokens/s · eta 0:41"
std::string step_text(const TrainProgress& p) {
  return fmt::format("loss {:.4f} · KL {:.4f} · same top-1 {:.1f} % · {:.0f} tokens/s · eta {}",
                     p.last.loss, p.last.kl, 100 * p.last.top1, p.tokens_per_second,
                     human_seconds(p.seconds_left));
}

Json progress_json(const TrainProgress& p) {
  Json json = {{"event", "progress"},
               {"step", p.step},
               {"steps", p.steps},
               {"tokens", p.tokens},
               {"changed_codes", p.changed_codes}};
  if (p.step > 0 && p.tokens_per_second > 0) {
    json["loss"] = p.last.loss;
    json["kl"] = p.last.kl;
    json["top1"] = p.last.top1;
    json["gradient_norm"] = p.last.gradient_norm;
    json["tokens_per_second"] = p.tokens_per_second;
    json["seconds_left"] = p.seconds_left;
  }
  if (p.kept_back.kl >= 0) {
    json["kept_kl"] = p.kept_back.kl;
    json["kept_top1"] = p.kept_back.top1;
  }
  return json;
}

}  // namespace

TrainReporter::TrainReporter(bool enabled, bool json, int64_t weights, Signals& signals)
    : enabled_(enabled),
      json_(json),
      terminal_(is_terminal(STDERR_FILENO)),
      weights_(static_cast<double>(weights)),
      signals_(signals),
      last_(Clock::now()) {}

TrainReporter::~TrainReporter() { clear(); }

void TrainReporter::clear() {
  if (drawn_) write_stderr("\r\033[K");
  drawn_ = false;
}

bool TrainReporter::stopped() {
  const std::lock_guard lock(mutex_);
  return signals_.pending() != 0;
}

bool TrainReporter::within(const Progress& progress) {
  const std::lock_guard lock(mutex_);
  if (enabled_) draw(progress);
  return signals_.pending() == 0;
}

void TrainReporter::draw(const Progress& progress) {
  const auto now = Clock::now();
  if (now - last_ < (terminal_ ? std::chrono::duration_cast<Clock::duration>(kRedraw) : kLine))
    return;
  last_ = now;
  const int64_t percent = 100 * progress.done / progress.total;
  const bool evaluates = progress.stage == "evaluate";
  std::string text = fmt::format("step {}{}  {} %{}", step_ + (evaluates ? 0 : 1),
                                 steps_ > 0 ? fmt::format("/{}", steps_) : "", percent,
                                 evaluates                      ? " of kept-back text"
                                 : progress.stage == "generate" ? " of the teacher's text"
                                                                : "");
  if (!tail_.empty()) text += "  " + tail_;
  if (terminal_) {
    const auto room = static_cast<std::size_t>(std::max(20, terminal_columns(STDERR_FILENO) - 1));
    note("\r\033[K{}", text.substr(0, room));
    drawn_ = true;
  } else {
    note("{}\n", text);
  }
}

void TrainReporter::after(const TrainProgress& p) {
  const std::lock_guard lock(mutex_);
  step_ = p.step;
  steps_ = p.steps;
  const bool trained = p.tokens_per_second > 0;
  tail_ = trained ? step_text(p) : "";
  if (p.changed_codes < 0) return;
  if (json_) write_stdout(progress_json(p).dump() + "\n");
  if (!enabled_) return;
  clear();
  std::string text = fmt::format("step {}/{}", p.step, p.steps);
  if (trained)
    text += fmt::format(" · {} · {} codes changed ({:.2f} %)", tail_, p.changed_codes,
                        100 * static_cast<double>(p.changed_codes) / weights_);
  if (p.kept_back.kl >= 0)
    text += fmt::format(" · kept back: KL {:.4f}, same top-1 {:.1f} %", p.kept_back.kl,
                        100 * p.kept_back.top1);
  note("{}\n", text);
}

}  // namespace crumb::apps
