#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "bench/eval/perplexity.h"
#include "models/errors.h"
#include "models/json.h"
#include "tests/eval/tiny_engine.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::json;
using kernels::KvType;
using testing::HasSubstr;

class Logits : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        std::filesystem::path(testing::TempDir()) / (std::string("crumb_logits_") + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string input() const { return (folder_ / "in.jsonl").string(); }
  std::string output() const { return (folder_ / "out.jsonl").string(); }
  void write_input(const std::string& text) const {
    std::ofstream(input(), std::ios::binary) << text;
  }
  std::vector<Json> read_output() const {
    std::ifstream in(output());
    std::vector<Json> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
    return lines;
  }

 private:
  std::filesystem::path folder_;
};

// Two pairs of tokens with the same embedding, and so (tied head) the same logit.
std::shared_ptr<const Engine> engine_with_ties() {
  auto source = models::tiny_model();
  const auto read = source.read;
  const auto D = static_cast<std::size_t>(source.config.dim);
  source.read = [read, D](std::string_view name, std::span<float> out) {
    read(name, out);
    if (name != "model.embed_tokens") return;
    std::copy_n(out.begin() + 40 * D, D, out.begin() + 250 * D);
    std::copy_n(out.begin() + 7 * D, D, out.begin() + 8 * D);
  };
  LoadOptions load;
  load.threads = 1;
  return Engine::from_source(source, load);
}

TEST_F(Logits, AgreeWithTheSessionAndAreSorted) {
  const auto engine = engine_with_ties();
  const auto V = static_cast<std::size_t>(engine->config().vocab);
  write_input(
      "{\"id\":\"a\",\"ids\":[5,40,250,7],\"text\":null}\n{\"ids\":[299],\"id\":\"b "
      "\\u00fc\\\"\\n\"}");
  write_logits(*engine, input(), output(), static_cast<int>(V), KvType::kF32, {});
  const auto lines = read_output();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["id"], "a");
  EXPECT_EQ(lines[1]["id"], "b \u00fc\"\n");
  EXPECT_TRUE(lines[1]["mean_nll"].is_null());
  const std::vector<std::vector<int32_t>> ids = {{5, 40, 250, 7}, {299}};
  for (std::size_t l = 0; l < 2; ++l) {
    const auto expected = logits_one_by_one(*engine, ids[l], KvType::kF32);
    ASSERT_EQ(lines[l]["lse"].size(), ids[l].size());
    double nll = 0;
    for (std::size_t t = 0; t < ids[l].size(); ++t) {
      const auto top_ids = lines[l]["top_ids"][t].get<std::vector<std::size_t>>();
      const auto top_logits = lines[l]["top_logits"][t].get<std::vector<float>>();
      ASSERT_EQ(top_ids.size(), V);
      for (std::size_t i = 0; i < V; ++i) {
        EXPECT_EQ(top_logits[i],
                  expected[t][top_ids[i]]);  // the shortest decimal reads back exactly
        if (i == 0) continue;
        EXPECT_GE(top_logits[i - 1], top_logits[i]);
        if (top_logits[i - 1] == top_logits[i]) {
          EXPECT_LT(top_ids[i - 1], top_ids[i]);
        }
      }
      const auto place = [&](std::size_t id) {
        return std::find(top_ids.begin(), top_ids.end(), id) - top_ids.begin();
      };
      EXPECT_EQ(place(250), place(40) + 1);
      EXPECT_EQ(place(8), place(7) + 1);
      const auto log_p = log_probabilities(expected[t]);
      EXPECT_NEAR(lines[l]["lse"][t].get<double>(), expected[t][0] - static_cast<double>(log_p[0]),
                  5e-7);
      if (t + 1 < ids[l].size())
        nll -= static_cast<double>(log_p[static_cast<std::size_t>(ids[l][t + 1])]);
    }
    if (l == 0) {
      EXPECT_NEAR(lines[l]["mean_nll"].get<double>(), nll / 3, 5e-7);
    }
  }
}

TEST_F(Logits, TopTakesTheFirstOfAll) {
  const auto engine = tiny_engine();
  write_input("{\"id\":\"a\",\"ids\":[1,2,3]}\n");
  write_logits(*engine, input(), output(), 300, KvType::kI8, {});
  const auto all = read_output();
  write_logits(*engine, input(), output(), 7, KvType::kI8, {});
  const auto some = read_output();
  for (std::size_t t = 0; t < 3; ++t) {
    auto ids = all[0]["top_ids"][t].get<std::vector<int>>();
    ids.resize(7);
    EXPECT_EQ(some[0]["top_ids"][t].get<std::vector<int>>(), ids);
  }
  EXPECT_EQ(some[0]["lse"], all[0]["lse"]);
}

TEST_F(Logits, EmptyInputGivesEmptyOutput) {
  write_input("");
  write_logits(*tiny_engine(), input(), output(), 5, KvType::kI8, {});
  EXPECT_TRUE(std::filesystem::exists(output()));
  EXPECT_TRUE(read_output().empty());
}

TEST_F(Logits, HostileLinesAreNamed) {
  const auto engine = tiny_engine();
  const std::string good = "{\"id\":\"a\",\"ids\":[1]}\n";
  struct Bad {
    std::string line, message;
  };
  const Bad all[] = {
      {"", "line 2: expected a JSON object, found text that is not JSON"},
      {"not json", "text that is not JSON"},
      {"{\"id\":\"a\",\"ids\":[1]", "text that is not JSON"},
      {"{\"id\":\"a\",\"ids\":[1]} {}", "text that is not JSON"},
      {"{\"id\":\"\xff\",\"ids\":[1]}", "text that is not JSON"},
      {"{\"id\":\"\xed\xa0\x80\",\"ids\":[1]}", "text that is not JSON"},
      {std::string("{\"id\":\"\0\",\"ids\":[1]}", 20), "text that is not JSON"},
      {"[1,2]", "expected a JSON object, found array"},
      {"null", "found null"},
      {"{\"ids\":[1]}", "a field \"id\""},
      {"{\"id\":3,\"ids\":[1]}", "\"id\" to be a string, found number"},
      {"{\"id\":\"a\"}", "a field \"ids\""},
      {"{\"id\":\"a\",\"ids\":\"1\"}", "\"ids\" to be an array, found string"},
      {"{\"id\":\"a\",\"ids\":[]}", "expected 1..256 ids"},
      {"{\"id\":\"a\",\"ids\":[300]}", "token ids 0..299, found 300"},
      {"{\"id\":\"a\",\"ids\":[-1]}", "found -1"},
      {"{\"id\":\"a\",\"ids\":[1.0]}", "found 1.0"},
      {"{\"id\":\"a\",\"ids\":[true]}", "found boolean"},
      {"{\"id\":\"a\",\"ids\":[[1]]}", "found array"},
      {"{\"id\":\"a\",\"ids\":[18446744073709551615]}", "found 18446744073709551615"},
      {"{\"id\":\"a\",\"ids\":[4294967296]}", "found 4294967296"},
      {"{\"id\":\"a\",\"ids\":[1e400]}", "line 2"},
      {std::string(100000, '['), "text that is not JSON"},
      {std::string((4 << 20) + 1, ' '), "at most 4194304 bytes"},
  };
  for (const Bad& bad : all) {
    write_input(good + bad.line + "\n" + good);
    try {
      write_logits(*engine, input(), output(), 5, KvType::kI8, {});
      FAIL() << "no error: " << bad.message;
    } catch (const FormatError& e) {
      EXPECT_THAT(e.what(), HasSubstr("in.jsonl line 2"));
      EXPECT_THAT(e.what(), HasSubstr(bad.message));
    }
    EXPECT_FALSE(std::filesystem::exists(output()));
  }
  std::string many = "{\"id\":\"a\",\"ids\":[0";
  for (int i = 0; i < 256; ++i) many += ",1";
  write_input(many + "]}");
  EXPECT_THROW(write_logits(*engine, input(), output(), 5, KvType::kI8, {}), FormatError);
}

TEST_F(Logits, UsageErrorsMissingFilesAndInterruption) {
  const auto engine = tiny_engine();
  write_input("{\"id\":\"a\",\"ids\":[1]}\n{\"id\":\"b\",\"ids\":[2]}\n");
  for (const int top : {0, -1, 301}) {
    try {
      write_logits(*engine, input(), output(), top, KvType::kI8, {});
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kUsage);
    }
  }
  EXPECT_THROW(write_logits(*engine, input() + ".missing", output(), 5, KvType::kI8, {}), IoError);
  EXPECT_THROW(write_logits(*engine, input(), output() + "/no/folder", 5, KvType::kI8, {}),
               IoError);
  EXPECT_THROW(write_logits(*engine, input(), output(), 5, KvType::kI8,
                            [](const Progress& p) { return p.done < 1; }),
               Interrupted);
  EXPECT_FALSE(std::filesystem::exists(output()));
}

TEST_F(Logits, LogProbabilitiesAreThoseOfTheDefinition) {
  const auto engine = engine_with_ties();
  write_input("{\"id\":\"a\",\"ids\":[5,40,250,7,8]}\n{\"id\":\"b\",\"ids\":[299]}");
  write_log_probabilities(*engine, input(), output(), KvType::kI8, {});
  const auto lines = read_output();
  ASSERT_EQ(lines.size(), 2u);
  const std::vector<int32_t> ids = {5, 40, 250, 7, 8};
  const auto logits = logits_one_by_one(*engine, ids, KvType::kI8);
  ASSERT_EQ(lines[0]["log_p"].size(), 4u);
  for (std::size_t t = 0; t < 4; ++t) {
    const auto target = static_cast<std::size_t>(ids[t + 1]);
    EXPECT_NEAR(lines[0]["log_p"][t].get<double>(),
                static_cast<double>(log_probabilities(logits[t])[target]), 5e-7);
    const auto top = std::max_element(logits[t].begin(), logits[t].end()) - logits[t].begin();
    EXPECT_EQ(lines[0]["greedy"][t].get<int>(), top == ids[t + 1] ? 1 : 0);
  }
  EXPECT_TRUE(lines[1]["log_p"].empty());
}

}  // namespace
}  // namespace crumb::eval
