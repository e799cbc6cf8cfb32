#include "apps/serve/metrics.h"

#include <gtest/gtest.h>

namespace crumb::serve {
namespace {

TEST(Histogram, BucketsAreCumulativeAndBoundsInclusive) {
  Histogram histogram({0.1, 1});
  for (const double value : {0.05, 0.1, 0.5, 7.0}) histogram.add(value);
  std::string text;
  histogram.write("x", text);
  EXPECT_EQ(text,
            "x_bucket{le=\"0.1\"} 2\nx_bucket{le=\"1\"} 3\nx_bucket{le=\"+Inf\"} 4\nx_sum 7.65\n"
            "x_count 4\n");
}

TEST(Metrics, CountsWhatHappened) {
  Metrics metrics;
  metrics.request_done("/health", 200, 0.01);
  metrics.request_done("/health", 200, 0.01);
  metrics.request_done("other", 404, 0.01);
  metrics.prompt_read(10, 3);
  metrics.generated();
  metrics.generated();
  metrics.first_token(0.2);
  metrics.token(0.01);
  const std::string text = metrics.text({{"g", "{slot=\"0\"}", "help", 1.5}, {"g", "", "help", 2}});
  for (const char* line :
       {"crumb_requests_total{route=\"/health\",code=\"200\"} 2\n",
        "crumb_requests_total{route=\"other\",code=\"404\"} 1\n", "crumb_prompt_tokens_total 10\n",
        "crumb_prompt_tokens_cached_total 3\n", "crumb_generated_tokens_total 2\n",
        "g{slot=\"0\"} 1.5\ng 2\n", "crumb_time_to_first_token_seconds_count 1\n",
        "crumb_inter_token_seconds_count 1\n", "crumb_request_seconds_count 3\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  EXPECT_EQ(text.find("# TYPE g gauge"), text.rfind("# TYPE g gauge")) << "one head a name";
}

}  // namespace
}  // namespace crumb::serve
