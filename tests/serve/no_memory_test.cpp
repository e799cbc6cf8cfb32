// Memory ends at every allocation in turn, and stays away: all that happens is std::bad_alloc.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "apps/serve/api_request.h"
#include "apps/serve/reply.h"
#include "tests/engine/tiny.h"

namespace {
thread_local int64_t allocations_left = -1;  // then none succeeds; -1: all do

void* limited(std::size_t n) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (void* p = std::malloc(n != 0 ? n : 1)) return p;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(std::size_t n) { return limited(n); }
void* operator new[](std::size_t n) { return limited(n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

// A value that the JSON library was making when memory ended is lost (nlohmann 3.11: its destructor
// does not run). Everything else is looked for.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:nlohmann"; }

namespace crumb::serve {
namespace {

// How many allocations `work` makes: it was run without the n-th and all later ones, for every n.
template <class Work>
int64_t survived(const Work& work) {
  for (int64_t n = 0;; ++n) {
    bool whole = true;
    allocations_left = n;
    try {
      work();
    } catch (const std::bad_alloc&) {
      whole = false;
    }
    allocations_left = -1;
    if (whole) return n;
  }
}

// Keeps the bytes that were to be sent.
class Sink : public Exchange {
 public:
  void respond(HttpResponse response) override { sent += response.body; }
  void start(HttpResponse) override {}
  void write(std::string piece) override { sent += piece; }
  void finish(bool) override {}
  int64_t unsent() const override { return 0; }
  bool gone() const override { return false; }
  void on_gone(std::function<void()>) override {}

  std::string sent;
};

class NoMemory : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_.engine = test::tiny_engine({"f32", 32, 0});
    model_.id = "tiny";
    model_.prompt.emplace(model_.engine);
    model_.context = 4096;
    model_.slots = 4;
  }
  static void TearDownTestSuite() { model_ = {}; }

  static ApiRequest chat(const std::string& fields) {
    return read_chat_request(
        parse_body(R"({"messages":[{"role":"user","content":"what is the weather like?"}],)" +
                       fields + "}",
                   limits_),
        model_, limits_);
  }

  static inline ServedModel model_;
  static inline Limits limits_;
};

TEST_F(NoMemory, ABodyIsParsed) {
  const std::string body =
      R"({"a":[1,2,[3,[4,{"deep":[true,null,"a text that is longer than what fits in place"]}]]],
          "b":{"c":{"d":{"another key that is longer than that":[[],{},[{}]]}}},"e":[{"f":1},{"f":2}]})";
  EXPECT_GT(survived([&] { parse_body(body, limits_); }), 20);
}

TEST_F(NoMemory, WhatIsWrongIsSaid) {
  EXPECT_GT(survived([] { bad_field("messages[3].content", "a string", "an array of 4").body(); }),
            5);
}

TEST_F(NoMemory, ARequestIsRead) {
  EXPECT_GT(survived([] {
              chat(R"("n":2,"stop":["x"],"logit_bias":{"7":-2},"stream":true,"odd":[{"a":[1]}])");
            }),
            50);
}

TEST_F(NoMemory, ASchemaIsRead) {
  EXPECT_GT(survived([] {
              chat(R"("response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{
                  "type":"object","properties":{"city":{"type":"string","maxLength":5},
                    "days":{"type":"array","items":{"enum":["one",2]},"maxItems":3}},
                  "required":["city"],"additionalProperties":false}}})");
            }),
            100);
}

TEST_F(NoMemory, ToolsAreRead) {
  EXPECT_GT(survived([] {
              chat(R"("tools":[{"type":"function","function":{"name":"weather","parameters":{
                  "type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}])");
            }),
            100);
}

TEST_F(NoMemory, AnAnswerIsWritten) {
  for (const bool stream : {false, true}) {
    const ApiRequest request =
        chat(std::string(R"("logprobs":true,"top_logprobs":2,"stream":)") +
             (stream ? R"(true,"stream_options":{"include_usage":true})" : "false"));
    JobEvent token;
    token.kind = JobEvent::Kind::kToken;
    token.id = 65;
    token.text = "a piece of text that is longer than what fits in place";
    token.logprobs = {{65, -1.5f, {{65, -1.5f}, {66, -2.5f}}}};
    JobEvent done;
    done.kind = JobEvent::Kind::kDone;
    std::string whole;
    const int64_t allocations = survived([&] {
      const auto sink = std::make_shared<Sink>();
      Reply reply(kChatDialect, sink, model_, request, {});
      reply.on_event(token);
      reply.on_event(done);
      whole = sink->sent;
    });
    EXPECT_GT(allocations, 100);
    EXPECT_NE(whole.find("top_logprobs"), std::string::npos) << whole;
  }
}

}  // namespace
}  // namespace crumb::serve
