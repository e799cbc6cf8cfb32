#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/rng.h"
#include "models/errors.h"

namespace crumb {
namespace {

constexpr std::size_t kFew = 64;

void check(bool ok, const char* name, const char* range, double found) {
  if (ok) return;
  throw Error(ExitCode::kUsage, std::string("sampling option out of range (") + name +
                                    ": expected " + range + ", found " + std::to_string(found) +
                                    ")");
}

}  // namespace

SamplingOptions default_sampling(const models::GenerationDefaults& model) {
  SamplingOptions options;
  if (model.temperature >= 0) options.temperature = model.temperature;
  if (model.top_p >= 0) options.top_p = model.top_p;
  if (model.min_p >= 0) options.min_p = model.min_p;
  if (model.repeat_penalty > 0) options.repeat_penalty = model.repeat_penalty;
  if (model.top_k >= 0) options.top_k = model.top_k;
  return options;
}

void validate(const SamplingOptions& o) {
  check(o.temperature >= 0 && o.temperature <= 100, "temp", "0..100", o.temperature);
  check(o.top_k >= 0, "top-k", ">= 0", static_cast<double>(o.top_k));
  check(o.top_p > 0 && o.top_p <= 1, "top-p", "above 0, at most 1", o.top_p);
  check(o.min_p >= 0 && o.min_p <= 1, "min-p", "0..1", o.min_p);
  check(o.repeat_penalty > 0 && o.repeat_penalty <= 100, "repeat-penalty", "above 0, at most 100",
        o.repeat_penalty);
  for (const LogitBias& b : o.bias)
    check(std::abs(b.bias) <= 1000, "logit-bias", "-1000..1000", b.bias);
  check(o.repeat_last_n >= -1, "repeat-last-n", ">= -1", static_cast<double>(o.repeat_last_n));
  check(std::abs(o.presence_penalty) <= 100, "presence-penalty", "-100..100", o.presence_penalty);
  check(std::abs(o.frequency_penalty) <= 100, "frequency-penalty", "-100..100",
        o.frequency_penalty);
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab)
    : edited_(static_cast<std::size_t>(vocab)),
      block_max_(static_cast<std::size_t>(logit_blocks(vocab))),
      count_(static_cast<std::size_t>(vocab)) {
  candidates_.reserve(static_cast<std::size_t>(vocab));
  restart(options);
}

void Sampler::restart(const SamplingOptions& options) {
  validate(options);
  for (const LogitBias& b : options.bias)
    check(b.id >= 0 && b.id < std::ssize(edited_), "logit-bias", "ids of the vocabulary", b.id);
  options_ = options;
  step_ = 0;
}

bool Sampler::edits() const { return penalises() || !options_.bias.empty(); }

bool Sampler::penalises() const {
  const auto& o = options_;
  return o.repeat_penalty != 1 || o.presence_penalty != 0 || o.frequency_penalty != 0;
}

// logit > 0 is divided by the penalty, others multiplied (Keskar et al. 2019, CTRL); then presence
// and frequency are subtracted (OpenAI's definition).
void Sampler::penalise(std::span<const int32_t> history) {
  const auto& o = options_;
  if (o.repeat_last_n >= 0 && std::ssize(history) > o.repeat_last_n)
    history = history.last(static_cast<std::size_t>(o.repeat_last_n));
  for (const int32_t id : history) ++count_[static_cast<std::size_t>(id)];
  for (const int32_t id : history) {
    const auto i = static_cast<std::size_t>(id);
    if (count_[i] == 0) continue;
    float& logit = edited_[i];
    logit = logit > 0 ? logit / o.repeat_penalty : logit * o.repeat_penalty;
    logit -= o.presence_penalty + o.frequency_penalty * static_cast<float>(count_[i]);
    count_[i] = 0;
  }
}

int32_t Sampler::best() const {
  const auto block = std::max_element(block_max_.begin(), block_max_.end()) - block_max_.begin();
  const auto begin = logits_.begin() + block * kLogitBlock;
  return static_cast<int32_t>(
      std::find(begin, logits_.end(), block_max_[static_cast<std::size_t>(block)]) -
      logits_.begin());
}

// The k best by a heap whose root is the worst kept: one comparison for nearly every block.
void Sampler::keep_top_k(std::size_t k) {
  candidates_.clear();
  for (std::size_t i = 0; i < logits_.size(); ++i) {
    // Ids ascend, so a later token that only equals the worst kept is no better.
    while (i % kLogitBlock == 0 && i < logits_.size() && candidates_.size() == k &&
           block_max_[i / kLogitBlock] <= candidates_.front().logit)
      i += kLogitBlock;
    if (i >= logits_.size()) break;
    const Candidate candidate{logits_[i], static_cast<int32_t>(i)};
    if (candidates_.size() < k) {
      candidates_.push_back(candidate);
      std::push_heap(candidates_.begin(), candidates_.end(), better);
    } else if (better(candidate, candidates_.front())) {
      std::pop_heap(candidates_.begin(), candidates_.end(), better);
      candidates_.back() = candidate;
      std::push_heap(candidates_.begin(), candidates_.end(), better);
    }
  }
}

// Without top-k every token is a candidate. Both top-p and min-p keep a prefix of the sorted order,
// so min-p may be applied first and spares sorting the tail; top-p's sum is still taken over all.
void Sampler::keep_all_above_min_p() {
  const float most = *std::max_element(block_max_.begin(), block_max_.end());
  const float least = options_.min_p > 0 ? most + std::log(options_.min_p) : -INFINITY;
  candidates_.clear();
  for (std::size_t block = 0; block < block_max_.size(); ++block) {
    if (block_max_[block] < least) continue;
    const std::size_t begin = block * kLogitBlock;
    const std::size_t end = std::min(begin + kLogitBlock, logits_.size());
    for (std::size_t i = begin; i < end; ++i)
      if (logits_[i] >= least) candidates_.push_back({logits_[i], static_cast<int32_t>(i)});
  }
}

// Logits after biases and penalties, and their blocks' maxima.
void Sampler::prepare(std::span<const float> logits, std::span<const int32_t> history,
                      std::span<const float> block_max) {
  logits_ = logits;
  if (edits()) {
    std::copy(logits.begin(), logits.end(), edited_.begin());
    for (const LogitBias& b : options_.bias) edited_[static_cast<std::size_t>(b.id)] += b.bias;
    if (penalises()) penalise(history);
    logits_ = edited_;
  }
  if (block_max.empty() || edits()) {
    find_block_max(logits_, block_max_.data());
  } else {
    std::copy(block_max.begin(), block_max.end(), block_max_.begin());
  }
}

// The filter is asked about the likeliest tokens first, for most of them are allowed where many
// are; where few are it can list them.
void Sampler::keep_allowed(TokenFilter& filter) {
  const auto wanted = options_.temperature == 0 ? std::size_t{1}
                      : options_.top_k > 0
                          ? static_cast<std::size_t>(std::min(options_.top_k, std::ssize(logits_)))
                          : logits_.size();
  candidates_.clear();
  if (filter.list(allowed_)) {
    for (const int32_t id : allowed_)
      candidates_.push_back({logits_[static_cast<std::size_t>(id)], id});
    std::sort(candidates_.begin(), candidates_.end(), better);
    if (candidates_.size() > wanted) candidates_.resize(wanted);
    return;
  }
  // Often enough are among the likeliest, and need no order of all.
  if (const std::size_t few = std::max(kFew, 2 * wanted); few < logits_.size() / 4) {
    keep_top_k(few);
    std::sort(candidates_.begin(), candidates_.end(), better);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < candidates_.size() && kept < wanted; ++i)
      if (filter.allows(candidates_[i].id)) candidates_[kept++] = candidates_[i];
    if (kept == wanted) return candidates_.resize(kept);
    candidates_.clear();
  }
  const auto worse = [](const Candidate& a, const Candidate& b) { return better(b, a); };
  heap_.clear();
  for (std::size_t i = 0; i < logits_.size(); ++i)
    heap_.push_back({logits_[i], static_cast<int32_t>(i)});
  std::make_heap(heap_.begin(), heap_.end(), worse);
  while (!heap_.empty() && candidates_.size() < wanted) {
    std::pop_heap(heap_.begin(), heap_.end(), worse);
    if (filter.allows(heap_.back().id)) candidates_.push_back(heap_.back());
    heap_.pop_back();
  }
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history,
                        std::span<const float> block_max, TokenFilter& filter) {
  prepare(logits, history, block_max);
  keep_allowed(filter);
  if (candidates_.empty()) return -1;
  return options_.temperature == 0 ? candidates_.front().id : draw(0);
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history,
                        std::span<const float> block_max) {
  prepare(logits, history, block_max);
  if (options_.temperature == 0) return best();

  double total = 0;  // of exp(logit - best) over what top-k left
  if (options_.top_k > 0 && options_.top_k < std::ssize(logits_)) {
    keep_top_k(static_cast<std::size_t>(options_.top_k));
  } else {
    keep_all_above_min_p();
    if (options_.top_p < 1) {
      const double best = *std::max_element(block_max_.begin(), block_max_.end());
      for (const float logit : logits_) total += std::exp(static_cast<double>(logit) - best);
    }
  }
  std::sort(candidates_.begin(), candidates_.end(), better);
  return draw(total);
}

// From sorted candidates; `total` of exp(logit - best) for top-p, 0: theirs.
int32_t Sampler::draw(double total) {
  const double best = candidates_.front().logit;
  const auto weight = [&](const Candidate& c) {
    return std::exp(static_cast<double>(c.logit) - best);
  };
  if (total == 0)
    for (const auto& c : candidates_) total += weight(c);

  std::size_t kept = 0;
  for (double sum = 0; kept < candidates_.size(); ++kept) {
    const double p = weight(candidates_[kept]);
    if (kept > 0 && (p < options_.min_p || (options_.top_p < 1 && sum >= options_.top_p * total)))
      break;
    sum += p;
  }
  candidates_.resize(kept);

  const auto tempered = [&](const Candidate& c) {
    return std::exp((static_cast<double>(c.logit) - best) /
                    static_cast<double>(options_.temperature));
  };
  double sum = 0;
  for (const auto& c : candidates_) sum += tempered(c);
  double left = uniform(options_.seed, step_++) * sum;
  for (const auto& c : candidates_) {
    left -= tempered(c);
    if (left < 0) return c.id;
  }
  return candidates_.back().id;
}

}  // namespace crumb
