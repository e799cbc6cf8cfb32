#include "apps/serve/openapi.h"
#include "models/json.h"

#include <gtest/gtest.h>

#include <regex>

#include "tests/engine/tiny.h"

namespace crumb::serve {
namespace {

TEST(OpenApi, PatternOfNumbers) {
  for (const int64_t last : {0, 7, 9, 10, 42, 99, 100, 299, 1000, 1203}) {
    const std::regex pattern(number_pattern(last));
    for (int64_t n = 0; n <= last + 300; ++n)
      ASSERT_EQ(std::regex_match(std::to_string(n), pattern), n <= last) << n << " of " << last;
    for (const char* other : {"", "-1", "01", "00", " 1", "1x", "1e1"})
      EXPECT_FALSE(std::regex_match(other, pattern)) << other << " of " << last;
  }
}

TEST(OpenApi, HoldsTheNumbersOfTheModel) {
  ServedModel model;
  model.engine = test::tiny_engine({"f32", 32, 0});
  model.slots = 3;
  const auto document = nlohmann::json::parse(openapi_text(model));
  EXPECT_EQ(document.dump().find("{{"), std::string::npos);
  const auto& schemas = document.at("components").at("schemas");
  EXPECT_EQ(schemas.at("ChatRequest").at("properties").at("n").at("maximum"), 3);
  EXPECT_EQ(schemas.at("DetokenizeRequest").at("properties").at("tokens").at("items").at("maximum"),
            299);
}

}  // namespace
}  // namespace crumb::serve
