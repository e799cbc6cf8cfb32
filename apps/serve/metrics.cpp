#include "apps/serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace crumb::serve {
namespace {

void head(const std::string& name, const char* type, const std::string& help, std::string& out) {
  out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

void counter(const std::string& name, const std::string& help, int64_t value, std::string& out) {
  head(name, "counter", help, out);
  out += fmt::format("{} {}\n", name, value);
}

const std::vector<double> kRequestBounds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                            1,     2.5,  5,     10,   30,  60,   120};
const std::vector<double> kTokenBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                          0.05,   0.1,   0.25,   0.5,   1};

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::add(double value) {
  const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  ++counts_[static_cast<std::size_t>(at)];
  sum_ += value;
  ++count_;
}

void Histogram::write(const std::string& name, std::string& out) const {
  int64_t below = 0;
  for (std::size_t i = 0; i < bounds_.size(); ++i)
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, bounds_[i], below += counts_[i]);
  out += fmt::format("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name, count_,
                     sum_);
}

Metrics::Metrics()
    : first_token_(kRequestBounds), inter_token_(kTokenBounds), request_(kRequestBounds) {}

void Metrics::request_done(const std::string& route, int status, double seconds) {
  const std::lock_guard lock(mutex_);
  ++requests_[{route, status}];
  request_.add(seconds);
}

void Metrics::prompt_read(int64_t tokens, int64_t cached) {
  const std::lock_guard lock(mutex_);
  prompt_tokens_ += tokens;
  cached_tokens_ += cached;
}

void Metrics::token(double seconds_since_last) {
  const std::lock_guard lock(mutex_);
  inter_token_.add(seconds_since_last);
}

void Metrics::first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_.add(seconds);
}

void Metrics::generated() {
  const std::lock_guard lock(mutex_);
  ++generated_;
}

void Metrics::cancelled() {
  const std::lock_guard lock(mutex_);
  ++cancelled_;
}

int64_t Metrics::generated_tokens() const {
  const std::lock_guard lock(mutex_);
  return generated_;
}

std::string Metrics::text(const std::vector<Gauge>& gauges) const {
  const std::lock_guard lock(mutex_);
  std::string out;
  head("crumb_requests_total", "counter", "Requests answered, by route and status.", out);
  for (const auto& [key, count] : requests_)
    out += fmt::format("crumb_requests_total{{route=\"{}\",code=\"{}\"}} {}\n", key.first,
                       key.second, count);
  counter("crumb_requests_cancelled_total", "Requests whose client left.", cancelled_, out);
  counter("crumb_prompt_tokens_total", "Prompt tokens read by the model.", prompt_tokens_, out);
  counter("crumb_prompt_tokens_cached_total", "Prompt tokens found in a slot's cache.",
          cached_tokens_, out);
  counter("crumb_generated_tokens_total", "Tokens written by the model.", generated_, out);
  std::string last;
  for (const Gauge& gauge : gauges) {
    if (gauge.name != last) head(gauge.name, "gauge", gauge.help, out);
    last = gauge.name;
    out += fmt::format("{}{} {}\n", gauge.name, gauge.labels, gauge.value);
  }
  const std::pair<const char*, std::pair<const char*, const Histogram*>> histograms[] = {
      {"crumb_time_to_first_token_seconds",
       {"From the request to its first token.", &first_token_}},
      {"crumb_inter_token_seconds", {"Between two tokens of one answer.", &inter_token_}},
      {"crumb_request_seconds", {"From the request to its end.", &request_}}};
  for (const auto& [name, about] : histograms) {
    head(name, "histogram", about.first, out);
    about.second->write(name, out);
  }
  return out;
}

}  // namespace crumb::serve
