#include "quant/train/train_job.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "models/errors.h"
#include "quant/train/noise.h"
#include "quant/train/token_data.h"

namespace crumb::quant::train {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<int32_t> kept_back_ids(const TrainRecipe& r) {
  std::vector<int32_t> ids;
  if (r.kept_back.empty()) return ids;
  const TokenData data({r.kept_back}, r.window);
  if (data.windows() < r.kept_windows)
    throw FormatError("kept-back tokens (" + r.kept_back + ": expected " +
                      std::to_string(r.kept_windows) + " windows, found " +
                      std::to_string(data.windows()) + ")");
  ids.resize(static_cast<std::size_t>(r.kept_windows * r.window));
  for (int64_t w = 0; w < r.kept_windows; ++w)
    data.read(w, std::span(ids).subspan(static_cast<std::size_t>(w * r.window),
                                        static_cast<std::size_t>(r.window)));
  return ids;
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

}  // namespace

TrainEnd train(const TrainJob& job, Distiller& distiller, TrainingPlace& place) {
  const TrainRecipe& r = job.recipe;
  const TokenData data(r.data, r.window);
  const std::vector<int32_t> kept_back = kept_back_ids(r);
  const double start = now();
  double saved = start;
  Clock clock;
  const auto save = [&] {
    if (!job.state_prefix.empty()) save_full(job.state_prefix, {place, distiller.state()});
    saved = now();
  };
  const auto tell = [&](const StepReport& last, bool evaluate) {
    TrainProgress p;
    p.step = place.step;
    p.steps = r.steps;
    p.tokens = place.cursor * r.window;
    p.last = last;
    p.kept_back.kl = -1;
    if (evaluate && !kept_back.empty()) p.kept_back = distiller.evaluate(kept_back, r.loss);
    p.changed_codes = distiller.changed_codes();
    p.tokens_per_second = clock.seconds > 0 ? static_cast<double>(clock.tokens) / clock.seconds : 0;
    if (p.tokens_per_second > 0)
      p.seconds_left =
          static_cast<double>((r.steps - place.step) * r.batch * r.window) / p.tokens_per_second;
    clock = {};
    if (job.report) job.report(p);
  };
  if (place.step == 0) tell({}, true);
  while (place.step < r.steps) {
    const double begin = now();
    const auto ids = next_windows(data, r.window, r.batch, place.cursor, r.seed);
    const StepReport last = distiller.step(ids, options_of(job, place));
    ++place.step;
    place.cursor += r.batch;
    clock.seconds += now() - begin;
    clock.tokens += r.batch * r.window;
    const bool done = place.step == r.steps;
    if (place.step % r.report_every == 0 || done)
      tell(last, place.step % r.evaluate_every == 0 || done);
    const bool stopped = job.stop != nullptr && *job.stop != 0;
    const bool late = job.seconds > 0 && now() - start > job.seconds;
    if (done || stopped || late || now() - saved > r.save_seconds) save();
    if (done) break;
    if (stopped) return TrainEnd::kStopped;
    if (late) return TrainEnd::kOutOfTime;
  }
  return TrainEnd::kDone;
}

}  // namespace crumb::quant::train
