// Counters and histograms in Prometheus' text format. Thread-safe.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace crumb::serve {

// Cumulative counts over fixed bounds, in seconds.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);
  void add(double value);
  double sum() const { return sum_; }
  int64_t count() const { return count_; }
  void write(const std::string& name, std::string& out) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;  // of each bound, not cumulative; the last is above all
  double sum_ = 0;
  int64_t count_ = 0;
};

// A value that is read when the metrics are asked for.
struct Gauge {
  std::string name, labels, help;  // labels: "" or {slot="0"}
  double value = 0;
};

class Metrics {
 public:
  Metrics();
  void request_done(const std::string& route, int status, double seconds);
  void prompt_read(int64_t tokens, int64_t cached);
  void token(double seconds_since_last);  // not the first
  void first_token(double seconds);       // since the request came
  void generated();                       // every token written
  void cancelled();

  std::string text(const std::vector<Gauge>& gauges) const;
  int64_t generated_tokens() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;  // (route, status)
  int64_t prompt_tokens_ = 0, cached_tokens_ = 0, generated_ = 0, cancelled_ = 0;
  Histogram first_token_, inter_token_, request_;
};

}  // namespace crumb::serve
