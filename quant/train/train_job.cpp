#include "quant/train/train_job.h"

#include <chrono>
#include <cmath>
#include <span>

#include "engine/progress.h"
#include "quant/train/noise.h"

namespace crumb::quant::train {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Of the step after `place.step`.
StepOptions options_of(const TrainJob& job, const TrainingPlace& place) {
  const TrainRecipe& r = job.recipe;
  const int64_t t = place.step + 1, own = t - place.moments_from;
  double share = cosine_schedule(t, r.steps, r.warmup, r.floor);
  // A restarted optimiser warms up again under the same cosine.
  if (place.moments_from > 0 && own <= r.warmup)
    share *= static_cast<double>(own) / static_cast<double>(r.warmup + 1);
  const AdamOptions adam{r.beta1, r.beta2, 1e-8, 0};
  StepOptions options;
  options.loss = r.loss;
  if (t <= r.forward_kl_steps) options.loss.kind = LossKind::kForwardKl;
  options.masters = options.norms = adam_step(adam, own, share * r.rate);
  options.embedding = adam_step(adam, own, share * r.embedding_rate);
  options.scales = adam_step(adam, own, share * r.scale_rate);
  if (r.optimiser == Optimiser::kMuon)
    options.muon = {static_cast<float>(share * r.rate), static_cast<float>(r.momentum)};
  if (r.noise) {
    NoiseStep& noise = options.noise.emplace();
    noise.on = t <= std::llround(r.noise->share * static_cast<double>(r.steps));
    noise.seed = noise_seed(r.seed, t);
    noise.costs = job.costs ? &*job.costs : nullptr;
    noise.widths = adam_step(adam, own, share * r.noise->width_rate);
    noise.budget_weight = r.noise->budget_weight;
    noise.input_bits = r.noise->input_bits;
    noise.inputs = adam_step(adam, own, share * r.noise->input_rate);
    noise.random_widths = r.noise->random_widths;
  }
  options.gradient_limit = r.gradient_limit;
  return options;
}

// Time spent training, without what happens between steps.
struct Clock {
  double seconds = 0;
  int64_t tokens = 0;
};

// Whether anyone of a group wishes so.
bool any(AllReduce* group, bool wish) {
  if (group == nullptr) return wish;
  double sum = wish ? 1 : 0;
  group->sum(std::span(&sum, 1));
  return sum > 0;
}

}  // namespace

TrainEnd train(const TrainJob& job, Distiller& distiller, TrainingPlace& place) {
  const TrainRecipe& r = job.recipe;
  const std::vector<int32_t>& kept_back = job.text->kept_back;
  WindowSource windows(r, job.text->data, job.write);
  const double start = now();
  double saved = start;
  int64_t saved_step = place.step;
  Clock clock;
  const auto save = [&] {
    const bool wanted = !job.state_prefix.empty() && place.step != saved_step;
    const TrainingState* here = distiller.host_state();
    if (wanted && here != nullptr) save_full(job.state_prefix, place, *here);
    if (wanted && here == nullptr) save_full(job.state_prefix, place, distiller.state());
    saved = now();
    saved_step = place.step;
  };
  const auto tell = [&](const StepReport& last, bool full, bool evaluate) {
    TrainProgress p;
    p.step = place.step;
    p.steps = r.steps;
    p.tokens = place.cursor * r.window;
    p.last = last;
    p.kept_back.kl = -1;
    if (evaluate && !kept_back.empty()) p.kept_back = distiller.evaluate(kept_back, r.loss);
    if (full) p.changed_codes = distiller.changed_codes();
    p.tokens_per_second = clock.seconds > 0 ? static_cast<double>(clock.tokens) / clock.seconds : 0;
    if (p.tokens_per_second > 0)
      p.seconds_left = static_cast<double>((r.steps - place.step) * r.step_windows() * r.window) /
                       p.tokens_per_second;
    if (full) clock = {};
    if (job.report) job.report(p);
  };
  const auto step = [&] {
    const double begin = now();
    const auto ids = windows.next(place.cursor);
    const StepReport last = distiller.step(ids, options_of(job, place));
    ++place.step;
    place.cursor += r.step_windows();
    clock.seconds += now() - begin;
    clock.tokens += r.step_windows() * r.window;
    const bool done = place.step == r.steps;
    tell(last, place.step % r.report_every == 0 || done,
         place.step % r.evaluate_every == 0 || done);
  };
  try {
    if (place.step == 0) tell({}, true, true);
    while (place.step < r.steps) {
      step();
      const bool stopped = any(job.group, job.stop && job.stop());
      const bool late = any(job.group, job.seconds > 0 && now() - start > job.seconds);
      const bool done = place.step == r.steps;
      if (done || stopped || late || now() - saved > r.save_seconds) save();
      if (done) break;
      if (stopped) return TrainEnd::kStopped;
      if (late) return TrainEnd::kOutOfTime;
    }
  } catch (const Interrupted&) {
    save();
    return TrainEnd::kStopped;
  }
  return TrainEnd::kDone;
}

}  // namespace crumb::quant::train
