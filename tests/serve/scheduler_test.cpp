// Texts on shared slots: each is what it is alone, whoever comes, leaves or waits beside it.
#include "apps/serve/scheduler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <cstring>
#include <mutex>

#include "engine/generate.h"
#include "tests/engine/tiny.h"

namespace crumb::serve {
namespace {

using namespace std::chrono_literals;

// What a client has seen of its request.
struct Client {
  std::shared_ptr<WorkRequest> work = std::make_shared<WorkRequest>();
  std::mutex mutex;
  std::condition_variable changed;
  struct Answer {
    std::vector<int32_t> ids;
    std::string text;
    std::vector<TokenLogprob> prompt_logprobs, logprobs;
    std::vector<float> embedding;
    FinishReason reason = FinishReason::kCancelled;
    JobStats stats;
    std::optional<ApiError> error;
    bool done = false;
  };
  std::vector<Answer> answers;
  int events = 0;

  explicit Client(std::vector<Job> jobs) : answers(jobs.size()) {
    work->jobs = std::move(jobs);
    work->on_event = [this](JobEvent event) { take(std::move(event)); };
  }
  void take(JobEvent event) {
    const std::lock_guard lock(mutex);
    Answer& answer = answers[event.job];
    ++events;
    answer.text += event.text;
    switch (event.kind) {
      case JobEvent::Kind::kPrompt:
        answer.prompt_logprobs.insert(answer.prompt_logprobs.end(), event.logprobs.begin(),
                                      event.logprobs.end());
        break;
      case JobEvent::Kind::kToken:
        answer.ids.push_back(event.id);
        answer.logprobs.insert(answer.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
        break;
      case JobEvent::Kind::kEmbedding:
        answer.embedding = std::move(event.embedding);
        break;
      case JobEvent::Kind::kDone:
        answer.reason = event.reason;
        answer.stats = event.stats;
        answer.done = true;
        break;
      case JobEvent::Kind::kFailed:
        answer.error = event.error;
        answer.done = true;
        break;
    }
    changed.notify_all();
  }
  template <class Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 60s, [&] { return condition(*this); });
  }
  bool wait_done() {
    return wait([](const Client& c) {
      return std::all_of(c.answers.begin(), c.answers.end(), [](const auto& a) { return a.done; });
    });
  }
  bool wait_tokens(std::size_t n) {
    return wait([n](const Client& c) { return c.answers[0].ids.size() >= n; });
  }
};

class SchedulerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    LoadOptions load;
    load.threads = 2;
    engine_ = test::tiny_engine({"int4", 4, 32}, load);
  }
  static void TearDownTestSuite() { engine_.reset(); }

  static Job job(int64_t prompt, int64_t tokens, uint64_t seed) {
    Job job;
    job.prompt = test::some_ids(prompt, 300);
    for (auto& id : job.prompt) id = 3 + (id + static_cast<int32_t>(seed)) % 297;
    job.max_tokens = tokens;
    job.ignore_eos = true;
    job.sampling.seed = seed;
    return job;
  }
  static GenerateResult alone(const Job& job) {
    GenerateOptions options;
    options.sampling = job.sampling;
    options.max_tokens = job.max_tokens;
    options.stop = job.stop;
    options.ignore_eos = job.ignore_eos;
    return generate(*engine_->make_session(), *engine_, job.prompt, options, {});
  }
  static void expect_as_alone(const Client& client) {
    for (std::size_t i = 0; i < client.answers.size(); ++i) {
      const GenerateResult want = alone(client.work->jobs[i]);
      EXPECT_EQ(client.answers[i].ids, want.ids);
      EXPECT_EQ(client.answers[i].text, want.text);
      EXPECT_EQ(client.answers[i].reason, want.reason);
      EXPECT_EQ(client.answers[i].stats.generated_tokens, std::ssize(want.ids));
    }
  }

  static inline std::shared_ptr<const Engine> engine_;
  Metrics metrics_;
};

TEST_F(SchedulerTest, EachTextIsAsAlone) {
  SchedulerOptions options;
  options.slots = 3;
  options.chunk = 16;
  Scheduler scheduler(engine_, options, metrics_);
  std::vector<std::unique_ptr<Client>> clients;
  int64_t generated = 0;
  for (uint64_t i = 0; i < 14; ++i) {
    Job one = job(3 + static_cast<int64_t>(i * 13 % 90), 5 + static_cast<int64_t>(i * 7 % 40), i);
    one.ignore_eos = i % 3 != 0;
    if (i % 4 == 1) one.sampling.temperature = 0;
    if (i % 5 == 2) one.sampling.repeat_penalty = 1.3f;
    if (i % 5 == 3) one.sampling.bias = {{50, 6.0f}};
    if (i % 4 == 2) one.stop = {alone(one).text.substr(4, 2)};
    if (i % 6 == 5) one.max_tokens = -1;  // to the context's end
    clients.push_back(std::make_unique<Client>(std::vector<Job>{one}));
    scheduler.submit(clients.back()->work);
  }
  for (auto& client : clients) {
    ASSERT_TRUE(client->wait_done());
    expect_as_alone(*client);
    generated += client->answers[0].stats.generated_tokens;
  }
  EXPECT_EQ(metrics_.generated_tokens(), generated);
  EXPECT_EQ(scheduler.in_flight(), 0);
}

TEST_F(SchedulerTest, ACachedPrefixChangesNothing) {
  SchedulerOptions options;
  options.slots = 2;
  Scheduler scheduler(engine_, options, metrics_);
  Job first = job(80, 6, 5);
  Client one({first});
  scheduler.submit(one.work);
  ASSERT_TRUE(one.wait_done());
  EXPECT_EQ(one.answers[0].stats.cached_tokens, 0);
  Job second = first;
  second.prompt.insert(second.prompt.end(), one.answers[0].ids.begin(), one.answers[0].ids.end());
  second.prompt.push_back(42);
  Client two({second});
  scheduler.submit(two.work);
  ASSERT_TRUE(two.wait_done());
  EXPECT_EQ(two.answers[0].stats.cached_tokens, 80 + 5) << "the last token is sampled, not read";
  expect_as_alone(two);
  second.cache = false;
  Client cold({second});
  scheduler.submit(cold.work);
  ASSERT_TRUE(cold.wait_done());
  EXPECT_EQ(cold.answers[0].stats.cached_tokens, 0);
  EXPECT_EQ(cold.answers[0].ids, two.answers[0].ids);
}

TEST_F(SchedulerTest, OtherAnswersToAPromptAreCopiesOfItsReading) {
  SchedulerOptions options;
  options.slots = 3;
  Scheduler scheduler(engine_, options, metrics_);
  std::vector<Job> jobs;
  for (uint64_t i = 0; i < 5; ++i) {
    jobs.push_back(job(70, 8, 3));
    jobs.back().sampling.seed = i;
  }
  Client client(jobs);
  scheduler.submit(client.work);
  ASSERT_TRUE(client.wait_done());
  expect_as_alone(client);
  for (std::size_t i = 1; i < 5; ++i) EXPECT_EQ(client.answers[i].stats.cached_tokens, 69);
}

TEST_F(SchedulerTest, LeavingTouchesNobodyElse) {
  SchedulerOptions options;
  options.slots = 2;
  options.queue = 3;
  Scheduler scheduler(engine_, options, metrics_);
  Client stays({job(30, 150, 1)}), leaves({job(10, 200, 2)}), waits({job(20, 9, 3)}),
      never({job(20, 9, 4)});
  scheduler.submit(leaves.work);
  scheduler.submit(stays.work);
  ASSERT_TRUE(leaves.wait_tokens(3));
  scheduler.submit(never.work);
  scheduler.submit(waits.work);
  scheduler.cancel(never.work);  // while it waits
  scheduler.cancel(leaves.work);
  ASSERT_TRUE(waits.wait_done());
  ASSERT_TRUE(stays.wait_done());
  expect_as_alone(stays);
  expect_as_alone(waits);
  EXPECT_EQ(never.events, 0);
  EXPECT_FALSE(leaves.answers[0].done);
  EXPECT_EQ(scheduler.in_flight(), 0);
}

TEST_F(SchedulerTest, TheQueueIsBounded) {
  SchedulerOptions options;
  options.slots = 1;
  options.queue = 2;
  Scheduler scheduler(engine_, options, metrics_);
  Client a({job(5, 200, 1)}), b({job(5, 4, 2)}), c({job(5, 4, 3)}), d({job(5, 4, 4)});
  for (Client* client : {&a, &b, &c}) scheduler.submit(client->work);
  try {
    scheduler.submit(d.work);
    FAIL() << "taken beyond the limit";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 503);
    EXPECT_GT(error.retry_after, 0);
  }
  for (Client* client : {&a, &b, &c}) ASSERT_TRUE(client->wait_done());
  scheduler.submit(d.work);
  ASSERT_TRUE(d.wait_done());
}

TEST_F(SchedulerTest, DrainingEndsWhatWaitsAndLetsRun) {
  SchedulerOptions options;
  options.slots = 1;
  Scheduler scheduler(engine_, options, metrics_);
  Client runs({job(5, 150, 1)}), waits({job(5, 4, 2)}), late({job(5, 4, 3)});
  scheduler.submit(runs.work);
  ASSERT_TRUE(runs.wait_tokens(1));
  scheduler.submit(waits.work);
  scheduler.drain();
  ASSERT_TRUE(waits.wait_done());
  EXPECT_EQ(waits.answers[0].error->status, 503);
  EXPECT_THROW(scheduler.submit(late.work), ApiError);
  ASSERT_TRUE(runs.wait_done());
  expect_as_alone(runs);
}

TEST_F(SchedulerTest, AClientThatTakesNothingWaitsAndGoesOn) {
  SchedulerOptions options;
  options.slots = 2;
  Scheduler scheduler(engine_, options, metrics_);
  Client slow({job(5, 60, 1)}), good({job(5, 60, 2)});
  std::atomic<bool> full{true};
  slow.work->blocked = [&] { return full.load(); };
  scheduler.submit(slow.work);
  scheduler.submit(good.work);
  ASSERT_TRUE(good.wait_done());
  EXPECT_EQ(slow.events, 0);
  full = false;
  ASSERT_TRUE(slow.wait_done());
  expect_as_alone(slow);
  expect_as_alone(good);
}

TEST_F(SchedulerTest, ARequestsTimeEnds) {
  SchedulerOptions options;
  options.slots = 1;
  Scheduler scheduler(engine_, options, metrics_);
  Client client({job(5, 200, 1)});
  client.work->max_seconds = 1e-9;
  scheduler.submit(client.work);
  ASSERT_TRUE(client.wait_done());
  EXPECT_EQ(client.answers[0].reason, FinishReason::kLength);
  EXPECT_LT(client.answers[0].ids.size(), 200u);
}

TEST_F(SchedulerTest, LogprobsOfPromptAndAnswer) {
  SchedulerOptions options;
  options.slots = 2;
  options.chunk = 7;
  Scheduler scheduler(engine_, options, metrics_);
  Job one = job(40, 5, 9);
  one.sampling.temperature = 0;
  one.top_logprobs = 2;
  one.prompt_logprobs = true;
  Job none = one;
  none.max_tokens = 0;
  Client client({one, none}), warm({one});
  scheduler.submit(client.work);
  ASSERT_TRUE(client.wait_done());
  scheduler.submit(warm.work);
  ASSERT_TRUE(warm.wait_done());
  auto ids = one.prompt;
  ids.insert(ids.end(), client.answers[0].ids.begin(), client.answers[0].ids.end());
  const auto logits = test::all_logits(*engine_, ids, {});
  std::vector<TokenLogprob> got = client.answers[0].prompt_logprobs;
  ASSERT_EQ(got.size(), 39u);
  EXPECT_EQ(client.answers[1].prompt_logprobs.size(), 39u);
  EXPECT_TRUE(client.answers[1].ids.empty());
  EXPECT_EQ(warm.answers[0].prompt_logprobs.size(), 39u) << "a cached prompt has no logits";
  got.insert(got.end(), client.answers[0].logprobs.begin(), client.answers[0].logprobs.end());
  ASSERT_EQ(got.size(), 44u);
  for (std::size_t i = 0; i < got.size(); ++i) {
    double sum = 0;
    for (std::size_t k = 0; k < 300; ++k) sum += std::exp(double{logits[i * 300 + k]});
    EXPECT_EQ(got[i].id, ids[i + 1]);
    EXPECT_NEAR(got[i].logprob,
                logits[i * 300 + static_cast<std::size_t>(ids[i + 1])] - std::log(sum), 1e-5);
    ASSERT_EQ(got[i].top.size(), 2u);
    if (i >= 39) {
      EXPECT_EQ(got[i].top[0].second, got[i].logprob) << "greedy: the same bits";
    }
  }
}

TEST_F(SchedulerTest, EmbeddingsAreMeansWhateverTheChunks) {
  std::vector<std::vector<float>> seen;
  for (const int64_t chunk : {5, 64}) {
    SchedulerOptions options;
    options.slots = 2;
    options.chunk = chunk;
    Scheduler scheduler(engine_, options, metrics_);
    Job one = job(33, 0, 4);
    one.embed = true;
    Client client({one}), beside({job(20, 30, 1)});
    scheduler.submit(beside.work);
    scheduler.submit(client.work);
    ASSERT_TRUE(client.wait_done());
    ASSERT_TRUE(beside.wait_done());
    expect_as_alone(beside);
    seen.push_back(client.answers[0].embedding);
  }
  EXPECT_EQ(seen[0], seen[1]);
  Batch batch(engine_, {});
  const auto sequence = batch.make_sequence();
  const auto ids = job(33, 0, 4).prompt;
  const BatchPart part{sequence.get(), ids, LogitsOf::kNone};
  batch.step({&part, 1});
  std::vector<float> state(seen[0].size());
  std::vector<double> mean(state.size());
  for (int64_t i = 0; i < 33; ++i) {
    batch.hidden(i, state);
    for (std::size_t d = 0; d < state.size(); ++d) mean[d] += double{state[d]} / 33;
  }
  for (std::size_t d = 0; d < state.size(); ++d) EXPECT_NEAR(seen[0][d], mean[d], 1e-6);
}

TEST_F(SchedulerTest, EndingDropsWhatIsUnderWay) {
  Client client({job(5, 250, 1), job(9, 250, 2)}), waits({job(5, 4, 3)});
  {
    SchedulerOptions options;
    options.slots = 1;
    Scheduler scheduler(engine_, options, metrics_);
    scheduler.submit(client.work);
    scheduler.submit(waits.work);
    ASSERT_TRUE(client.wait_tokens(1));
  }
  EXPECT_FALSE(waits.answers[0].done);
}

}  // namespace
}  // namespace crumb::serve
