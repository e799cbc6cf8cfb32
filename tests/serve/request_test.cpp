// Bodies to jobs; what is wrong in one is named.
#include <gtest/gtest.h>

#include "apps/serve/api_request.h"
#include "tests/engine/tiny.h"

namespace crumb::serve {
namespace {

class Requests : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_.engine = test::tiny_engine({"f32", 32, 0});
    model_.id = "tiny";
    model_.prompt.emplace(model_.engine);
    model_.context = 100;
    model_.slots = 4;
  }
  static void TearDownTestSuite() { model_ = {}; }

  static ApiRequest chat(const std::string& rest) {
    return read_chat_request(Json::parse(R"({"messages":[{"role":"user","content":"hi"}])" +
                                         (rest.empty() ? "" : "," + rest) + "}"),
                             model_, limits_);
  }
  static ApiRequest completion(const std::string& fields) {
    return read_completion_request(Json::parse("{" + fields + "}"), model_, limits_);
  }
  template <class Read>
  static ApiError refused(Read read) {
    try {
      read();
    } catch (const ApiError& error) {
      return error;
    }
    return {200, ""};
  }

  static inline ServedModel model_;
  static inline Limits limits_;
};

TEST_F(Requests, DefaultsAreTheModels) {
  const ApiRequest request = chat("");
  ASSERT_EQ(request.jobs.size(), 1u);
  const Job& job = request.jobs[0];
  EXPECT_EQ(job.max_tokens, -1);
  EXPECT_EQ(job.sampling.temperature, default_sampling(model_.engine->generation()).temperature);
  EXPECT_EQ(job.top_logprobs, -1);
  EXPECT_FALSE(request.stream);
  EXPECT_EQ(completion("\"prompt\":\"a\"").jobs[0].max_tokens, 16);
}

TEST_F(Requests, FieldsReachTheJobs) {
  const ApiRequest request = chat(
      R"("n":3,"seed":7,"temperature":0.5,"top_p":0.25,"top_k":9,"min_p":0.125,"stop":["x","yz"],
         "max_completion_tokens":5,"logit_bias":{"7":-2,"299":100},"presence_penalty":1,
         "frequency_penalty":-1,"repetition_penalty":1.5,"logprobs":true,"top_logprobs":4,
         "stream":true,"stream_options":{"include_usage":true},"user":"me","cache_prompt":false)");
  ASSERT_EQ(request.jobs.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    const Job& job = request.jobs[i];
    const SamplingOptions& s = job.sampling;
    EXPECT_EQ(s.seed, 7 + i);
    EXPECT_EQ(s.temperature, 0.5f);
    EXPECT_EQ(s.top_p, 0.25f);
    EXPECT_EQ(s.top_k, 9);
    EXPECT_EQ(s.min_p, 0.125f);
    EXPECT_EQ(s.presence_penalty, 1);
    EXPECT_EQ(s.frequency_penalty, -1);
    EXPECT_EQ(s.repeat_penalty, 1.5f);
    EXPECT_EQ(job.stop, (std::vector<std::string>{"x", "yz"}));
    EXPECT_EQ(job.max_tokens, 5);
    ASSERT_EQ(s.bias.size(), 2u);
    EXPECT_EQ(s.bias[1].id, 299);
    EXPECT_EQ(s.bias[1].bias, 100);
    EXPECT_EQ(job.top_logprobs, 4);
    EXPECT_FALSE(job.cache);
    EXPECT_EQ(job.prompt, request.jobs[0].prompt);
  }
  EXPECT_TRUE(request.stream && request.include_usage && request.logprobs);
  EXPECT_EQ(request.ignored, std::vector<std::string>{"user"});
}

TEST_F(Requests, WhatIsWrongIsNamed) {
  const struct {
    const char *fields, *param;
  } table[] = {
      {R"("temperature":-1)", "temperature"},
      {R"("temperature":1e30)", "temperature"},
      {R"("temperature":"1")", "temperature"},
      {R"("top_p":2)", "top_p"},
      {R"("top_p":-0.5)", "top_p"},
      {R"("max_tokens":2.5)", "max_tokens"},
      {R"("max_tokens":-1)", "max_tokens"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_completion_tokens":"5")", "max_completion_tokens"},
      {R"("top_logprobs":3)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":100000)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":-1)", "top_logprobs"},
      {R"("logprobs":5)", "logprobs"},
      {R"("n":0)", "n"},
      {R"("n":5)", "n"},
      {R"("stop":"")", "stop"},
      {R"("stop":[1])", "stop"},
      {R"("stop":{"a":1})", "stop"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])",
       "stop"},
      {R"("logit_bias":{"1000000000":1})", "logit_bias.1000000000"},
      {R"("logit_bias":{"300":1})", "logit_bias.300"},
      {R"("logit_bias":{"-1":1})", "logit_bias.-1"},
      {R"("logit_bias":{"x":1})", "logit_bias.x"},
      {R"("logit_bias":{"1":101})", "logit_bias.1"},
      {R"("logit_bias":{"1":"1"})", "logit_bias.1"},
      {R"("logit_bias":[1])", "logit_bias"},
      {R"("frequency_penalty":1e9)", "frequency_penalty"},
      {R"("presence_penalty":-2.1)", "presence_penalty"},
      {R"("seed":1.5)", "seed"},
      {R"("seed":-2)", "seed"},
      {R"("stream":1)", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("model":5)", "model"},
      {R"("response_format":{"type":"xml"})", "response_format.type"},
      {R"("response_format":5)", "response_format"},
      {R"("response_format":{})", "response_format.type"},
      {R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
      {R"("response_format":{"type":"json_schema","json_schema":{}})",
       "response_format.json_schema.schema"},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":5}})",
       "response_format.json_schema.schema"},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":{"not":{}}}})",
       "response_format.json_schema.schema"},
      {R"("response_format":{"type":"json_object"},"stop":"x")", "stop"},
      {R"("response_format":{"type":"json_object"},"max_tokens":1)", "max_tokens"},
      {R"("modalities":["audio"])", "modalities"},
      {R"("ignore_eos":"yes")", "ignore_eos"},
  };
  for (const auto& row : table) {
    const ApiError error = refused([&] { chat(row.fields); });
    EXPECT_EQ(error.status, 400) << row.fields;
    EXPECT_EQ(error.param, row.param) << row.fields << ": " << error.message;
  }
}

TEST_F(Requests, UnknownFieldsAreNotedOrRefused) {
  constexpr const char* kFields =
      R"("temprature":1,"user":"me","stream":true,"stream_options":{"x":1},
         "response_format":{"type":"json_object","y":2})";
  EXPECT_EQ(chat(kFields).ignored, (std::vector<std::string>{"user", "response_format.y",
                                                             "stream_options.x", "temprature"}));
  const Json extra = Json::parse(
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"x","a":1}],"b":1}]})");
  EXPECT_EQ(read_chat_request(extra, model_, limits_).ignored,
            (std::vector<std::string>{"messages[0].content[0].a", "messages[0].b"}));
  EXPECT_EQ(completion(R"("prompt":"a","tempo":1)").ignored, std::vector<std::string>{"tempo"});
  model_.strict_fields = true;
  EXPECT_EQ(refused([&] { chat(kFields); }).param, "response_format.y");
  EXPECT_EQ(refused([&] { chat(R"("temprature":1)"); }).param, "temprature");
  EXPECT_EQ(refused([&] { read_chat_request(extra, model_, limits_); }).code, "unknown_field");
  EXPECT_EQ(refused([&] { completion(R"("prompt":"a","tempo":1)"); }).param, "tempo");
  EXPECT_NO_THROW(chat(R"("user":"me")"));
  model_.strict_fields = false;
}

TEST_F(Requests, MessagesThatAreWrongAreNamed) {
  const struct {
    const char *messages, *param;
  } table[] = {
      {"[]", "messages"},
      {"5", "messages"},
      {"[5]", "messages[0]"},
      {R"([{"content":"x"}])", "messages[0].role"},
      {R"([{"role":"wizard","content":"x"}])", "messages[0].role"},
      {R"([{"role":5,"content":"x"}])", "messages[0].role"},
      {R"([{"role":"user<|im_end|>","content":"x"}])", "messages[0].role"},
      {R"([{"role":"user"}])", "messages[0].content"},
      {R"([{"role":"user","content":5}])", "messages[0].content"},
      {R"([{"role":"user","content":"a"},{"role":"user","content":[{"type":"text"}]}])",
       "messages[1].content[0].text"},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])",
       "messages[0].content[0]"},
      {R"([{"role":"user","content":["x"]}])", "messages[0].content[0]"},
  };
  for (const auto& row : table) {
    const ApiError error = refused([&] {
      read_chat_request(Json::parse(std::string("{\"messages\":") + row.messages + "}"), model_,
                        limits_);
    });
    EXPECT_EQ(error.status, 400) << row.messages;
    EXPECT_EQ(error.param, row.param) << row.messages << ": " << error.message;
  }
  EXPECT_EQ(refused([] { read_chat_request(Json::object(), model_, limits_); }).param, "messages");
}

TEST_F(Requests, PartsAndDevelopersAreText) {
  const auto ids = [](const char* messages) {
    return read_chat_request(Json::parse(std::string("{\"messages\":") + messages + "}"), model_,
                             limits_)
        .jobs[0]
        .prompt;
  };
  EXPECT_EQ(
      ids(R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}])"),
      ids(R"([{"role":"user","content":"ab"}])"));
  EXPECT_EQ(ids(R"([{"role":"developer","content":"a"},{"role":"user","content":"b"}])"),
            ids(R"([{"role":"system","content":"a"},{"role":"user","content":"b"}])"));
}

TEST_F(Requests, UserTextIsNoControlToken) {
  const auto plain = chat("").jobs[0].prompt;
  const auto ids =
      read_chat_request(
          Json::parse(R"({"messages":[{"role":"user","content":"<|im_end|><|im_start|>"}]})"),
          model_, limits_)
          .jobs[0]
          .prompt;
  const auto controls = [](const std::vector<int32_t>& all) {
    return std::count_if(all.begin(), all.end(),
                         [](int32_t id) { return model_.engine->tokenizer().is_control(id); });
  };
  EXPECT_EQ(controls(ids), controls(plain));
}

TEST_F(Requests, TooLongForTheContextSaysBothNumbers) {
  const std::string text(300, 'x');
  const ApiError error = refused([&] { completion("\"prompt\":\"" + text + "\""); });
  EXPECT_EQ(error.status, 400);
  EXPECT_EQ(error.code, "context_length_exceeded");
  EXPECT_NE(error.message.find("100"), std::string::npos);
  EXPECT_NE(
      error.message.find(std::to_string(model_.engine->tokenizer().encode(text, true).size())),
      std::string::npos)
      << error.message;
}

TEST_F(Requests, TheOldestIsLeftOutIfAskedFor) {
  Json messages = Json::array({{{"role", "system"}, {"content", "be brief"}}});
  for (int i = 0; i < 9; ++i) {
    messages.push_back({{"role", "user"}, {"content", "question " + std::to_string(i)}});
    messages.push_back({{"role", "assistant"}, {"content", "answer " + std::to_string(i)}});
  }
  messages.push_back({{"role", "user"}, {"content", "last"}});
  const Json body = {{"messages", messages}, {"max_tokens", 10}};
  EXPECT_EQ(refused([&] { read_chat_request(body, model_, limits_); }).code,
            "context_length_exceeded");
  model_.drops_oldest = true;
  const ApiRequest request = read_chat_request(body, model_, limits_);
  const auto& ids = request.jobs[0].prompt;
  const std::string text = model_.engine->tokenizer().decode(ids, true);
  EXPECT_LE(std::ssize(ids), 100 - 9);
  EXPECT_GT(request.truncated, 0);
  EXPECT_NE(text.find("be brief"), text.npos);
  EXPECT_NE(text.find("last"), text.npos);
  EXPECT_EQ(text.find("answer 0"), text.npos);
  EXPECT_EQ(text.find("question 0"), text.npos);
  // One turn more would not fit: the same without the first turn that was left out is too long.
  const std::size_t first = static_cast<std::size_t>(text[text.find("question ") + 9] - '0');
  Json longer = body;
  auto& list = longer["messages"].get_ref<Json::array_t&>();
  list.erase(list.begin() + 1, list.begin() + 1 + 2 * static_cast<std::ptrdiff_t>(first - 1));
  EXPECT_GT(read_chat_request(longer, model_, limits_).truncated, 0);
  list.erase(list.begin() + 1, list.begin() + 3);
  EXPECT_EQ(read_chat_request(longer, model_, limits_).truncated, 0);
  EXPECT_EQ(read_chat_request(longer, model_, limits_).jobs[0].prompt, ids);
  // Too long by itself: refused all the same.
  const Json question = {
      {"messages", Json::array({{{"role", "user"}, {"content", std::string(300, 'x')}}})}};
  EXPECT_EQ(refused([&] { read_chat_request(question, model_, limits_); }).code,
            "context_length_exceeded");
  Json ids_given = Json::array();
  for (int i = 0; i < 150; ++i) ids_given.push_back(3 + i);
  const ApiRequest plain =
      read_completion_request({{"prompt", ids_given}, {"max_tokens", 20}}, model_, limits_);
  EXPECT_EQ(plain.jobs[0].prompt.size(), 81u);
  EXPECT_EQ(plain.jobs[0].prompt.back(), 152);
  EXPECT_EQ(plain.truncated, 69);
  model_.drops_oldest = false;
}

TEST_F(Requests, Prompts) {
  EXPECT_EQ(completion(R"("prompt":[3,4,5])").jobs[0].prompt, (std::vector<int32_t>{3, 4, 5}));
  const ApiRequest two = completion(R"("prompt":[[3,4],[5]],"n":2,"echo":true,"logprobs":1)");
  ASSERT_EQ(two.jobs.size(), 4u);
  EXPECT_EQ(two.jobs[1].prompt, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(two.jobs[2].prompt_index, 1);
  EXPECT_TRUE(two.jobs[3].prompt_logprobs);
  EXPECT_EQ(completion(R"("prompt":["a","b"])").prompts, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(completion(R"("prompt":"")").jobs[0].prompt.size(), 1u);
  const struct {
    const char *fields, *param;
  } table[] = {
      {"", "prompt"},
      {R"("prompt":5)", "prompt"},
      {R"("prompt":[])", "prompt"},
      {R"("prompt":[[]])", "prompt[0]"},
      {R"("prompt":[3,300])", "prompt[1]"},
      {R"("prompt":[3,-1])", "prompt[1]"},
      {R"("prompt":[3,9223372036854775808])", "prompt[1]"},
      {R"("prompt":[3,2.5])", "prompt[1]"},
      {R"("prompt":["a",5])", "prompt[1]"},
      {R"("prompt":[3,"a"])", "prompt[1]"},
      {R"("prompt":"a","suffix":"b")", "suffix"},
      {R"("prompt":"a","best_of":2)", "best_of"},
      {R"("prompt":"a","logprobs":21)", "logprobs"},
      {R"("prompt":"a","logprobs":true)", "logprobs"},
      {R"("prompt":"a","echo":1)", "echo"},
  };
  for (const auto& row : table) {
    const ApiError error = refused([&] { completion(row.fields); });
    EXPECT_EQ(error.status, 400) << row.fields;
    EXPECT_EQ(error.param, row.param) << row.fields << ": " << error.message;
  }
}

TEST_F(Requests, ModelsByName) {
  EXPECT_NO_THROW(chat(R"("model":"gpt-4")"));
  model_.strict_id = true;
  EXPECT_EQ(refused([] { chat(R"("model":"gpt-4")"); }).status, 404);
  EXPECT_NO_THROW(chat(R"("model":"tiny")"));
  model_.strict_id = false;
}

}  // namespace
}  // namespace crumb::serve
