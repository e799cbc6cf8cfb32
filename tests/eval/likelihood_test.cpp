#include "bench/eval/likelihood.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/eval/scoring.h"
#include "bench/eval/white_space.h"
#include "engine/chat.h"
#include "models/errors.h"
#include "tests/eval/tiny_engine.h"

namespace crumb::eval {
namespace {

using kernels::KvType;

// The definition: everything from an empty cache, token by token.
Likelihood slowly(const Engine& engine, const EncodedPair& pair, KvType kv) {
  std::vector<int32_t> all = pair.context;
  all.insert(all.end(), pair.continuation.begin(), pair.continuation.end());
  const auto logits = logits_one_by_one(engine, all, kv);
  Likelihood result{0, std::ssize(pair.continuation), true};
  for (std::size_t i = 0; i < pair.continuation.size(); ++i) {
    const auto& row = logits[pair.context.size() + i - 1];
    result.log_p -= negative_log_likelihood(row, pair.continuation[i]);
    const auto top = std::max_element(row.begin(), row.end()) - row.begin();
    result.greedy = result.greedy && top == pair.continuation[i];
  }
  return result;
}

Question question(std::vector<Choice> choices) { return {{}, std::move(choices), {true}}; }

TEST(EncodePair, ContinuationIsWhatTheWholeTextHasAfterTheContextsTokens) {
  const auto engine = tiny_engine();
  const auto encode = [&](const std::string& text) {
    return engine->tokenizer().encode(text, false);
  };
  // Every split of a text, also those inside a merged token.
  const std::string text = some_text(40);
  for (std::size_t at = 1; at < text.size(); ++at) {
    if (text[at - 1] == ' ') continue;
    const EncodedPair pair = encode_pair(*engine, text.substr(0, at), text.substr(at));
    const auto whole = encode(text), context = encode(text.substr(0, at));
    EXPECT_EQ(pair.context, context);
    EXPECT_EQ(pair.continuation,
              std::vector<int32_t>(whole.begin() + std::ssize(context), whole.end()));
  }
}

TEST(EncodePair, SpaceAtTheEndOfTheContextBelongsToTheContinuation) {
  const auto engine = tiny_engine();
  const EncodedPair moved = encode_pair(*engine, "abc \n", "d");
  const EncodedPair plain = encode_pair(*engine, "abc", " \nd");
  EXPECT_EQ(moved.context, plain.context);
  EXPECT_EQ(moved.continuation, plain.continuation);
}

TEST(EncodePair, WhiteSpaceIsPythons) {
  EXPECT_EQ(without_space_at_end("a\xe3\x80\x80\xc2\xa0 \n\x1c"), "a");
  EXPECT_EQ(without_space_at_ends("\xc2\x85\t a b \xe2\x80\x8a"), "a b");
  EXPECT_EQ(without_space_at_ends("\xe2\x80\x8b"), "\xe2\x80\x8b");  // zero width is no space
  EXPECT_EQ(without_space_at_ends(" \xe3\x80\x80"), "");
  EXPECT_EQ(without_space_at_end("\xa0"), "\xa0");  // no UTF-8
}

TEST(EncodePair, EmptyContextIsOneToken) {
  const auto engine = tiny_engine();
  const auto& data = engine->tokenizer().data();
  const EncodedPair pair = encode_pair(*engine, "  ", "abc");
  EXPECT_THAT(pair.context, testing::ElementsAre(data.bos >= 0 ? data.bos : data.eos));
  EXPECT_EQ(pair.continuation, engine->tokenizer().encode("  abc", false));
}

TEST(LikelihoodScorer, AgreesWithTheDefinitionToTheLastBit) {
  const auto engine = tiny_engine();
  for (const KvType kv : {KvType::kF32, KvType::kI8}) {
    LikelihoodScorer scorer(engine, kv);
    const std::string a = some_text(60), b = a.substr(0, 30) + some_text(25);
    const std::vector<Question> questions = {
        question({{a, " one"}, {a, " two three four"}, {a, " x"}, {a, ""}}), question({{a, " x"}}),
        question({{b, " one"}, {a, " one"}, {"", "abc"}}),
        question({{"zzz", " one"}, {"zzz one", " two"}}),
        question({{a, std::string(" ") + some_text(90)}})};
    for (const Question& one : questions) {
      const auto scored = scorer.score(one);
      ASSERT_EQ(scored.size(), one.choices.size());
      for (std::size_t i = 0; i < scored.size(); ++i) {
        const Choice& choice = one.choices[i];
        const auto pair = encode_pair(*engine, choice.context, choice.continuation);
        EXPECT_EQ(scored[i], slowly(*engine, pair, kv)) << choice.continuation;
      }
    }
    EXPECT_GT(scorer.tokens_reused(), 200);
  }
}

// Turns, steps and levels of all sizes: many questions at once give what each gives alone.
TEST(LikelihoodScorer, ManyQuestionsTogether) {
  for (const int threads : {1, 3}) {
    const auto engine = tiny_engine(1, threads);
    std::vector<Question> questions;
    for (std::size_t i = 0; i < 90; ++i) {
      const std::string shots = i < 45 ? some_text(i < 20 ? 90 : 30) : "", own = some_text(i % 17);
      Question one = question({});
      for (std::size_t k = 0; k <= i % 5; ++k)
        one.choices.push_back(
            {shots + "q" + own.substr(0, k % 2 == 0 ? own.size() : own.size() / 2),
             std::string(i % 3, ' ') + own.substr(0, k + i % 11)});
      questions.push_back(one);
    }
    questions.push_back(question({{some_text(150), some_text(100)}}));
    std::vector<const Question*> all;
    for (const Question& one : questions) all.push_back(&one);
    LikelihoodScorer together(engine, KvType::kI8);
    std::size_t next = 0;
    together.score(all, [&](std::size_t q, std::vector<Likelihood> scored) {
      EXPECT_EQ(q, next++);
      for (std::size_t i = 0; i < scored.size(); ++i) {
        const Choice& choice = questions[q].choices[i];
        const auto pair = encode_pair(*engine, choice.context, choice.continuation);
        const Likelihood expected =
            pair.continuation.empty() ? Likelihood{0, 0, true} : slowly(*engine, pair, KvType::kI8);
        EXPECT_EQ(scored[i], expected) << q << " " << i;
      }
    });
    EXPECT_EQ(next, questions.size());
    EXPECT_GT(together.tokens_reused(), together.tokens_run());
  }
}

TEST(LikelihoodScorer, ThroughTheChatTemplate) {
  const auto engine = tiny_engine();
  ASSERT_FALSE(engine->chat_template().empty());
  Chat chat(engine, {});
  chat.messages().push_back({"user", "ab <|im_end|> cd"});
  const EncodedPair pair = ChatPairs(engine).encode("ab <|im_end|> cd", " efg");
  EXPECT_EQ(pair.context, chat.render(true));
  EXPECT_EQ(pair.continuation, engine->tokenizer().encode("efg", false));
  LikelihoodScorer scorer(engine, KvType::kI8, true);
  EXPECT_EQ(scorer.score(question({{"ab <|im_end|> cd", " efg"}}))[0],
            slowly(*engine, pair, KvType::kI8));
}

TEST(LikelihoodScorer, GreedyContinuationIsFound) {
  const auto engine = tiny_engine();
  LikelihoodScorer scorer(engine, KvType::kF32);
  // The likeliest byte after a context, found by trying all.
  std::vector<Choice> choices;
  for (char c = '!'; c <= '~'; ++c) choices.push_back({"abc", std::string(1, c)});
  const auto all = scorer.score(question(choices));
  const auto logits =
      logits_one_by_one(*engine, engine->tokenizer().encode("abc", false), KvType::kF32);
  const auto top =
      std::max_element(logits.back().begin(), logits.back().end()) - logits.back().begin();
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto pair = encode_pair(*engine, "abc", choices[i].continuation);
    if (pair.continuation.size() == 1) {
      EXPECT_EQ(all[i].greedy, pair.continuation[0] == top);
    }
  }
}

TEST(LikelihoodScorer, CutsTheFrontOfWhatDoesNotFit) {
  const auto engine = tiny_engine();
  const auto room = static_cast<std::size_t>(engine->config().context);
  LikelihoodScorer scorer(engine, KvType::kF32);
  const std::string context = some_text(4 * room);
  const auto scored = scorer.score(question({{context, " abc"}}));
  EXPECT_EQ(scorer.cut_questions(), 1);
  EncodedPair pair = encode_pair(*engine, context, " abc");
  const std::size_t excess = pair.context.size() + pair.continuation.size() - room - 1;
  pair.context.erase(pair.context.begin(),
                     pair.context.begin() + static_cast<std::ptrdiff_t>(excess));
  std::vector<int32_t> fed = pair.context;
  EXPECT_EQ(fed.size() + pair.continuation.size() - 1, room);
  // The last token is only a target: the slow way round must not feed it either.
  fed.insert(fed.end(), pair.continuation.begin(), pair.continuation.end() - 1);
  const auto logits = logits_one_by_one(*engine, fed, KvType::kF32);
  double log_p = 0;
  for (std::size_t i = 0; i < pair.continuation.size(); ++i)
    log_p -= negative_log_likelihood(logits[pair.context.size() + i - 1], pair.continuation[i]);
  EXPECT_EQ(scored[0].log_p, log_p);
  EXPECT_THROW(scorer.score(question({{"a", " " + context}})), FormatError);
}

}  // namespace
}  // namespace crumb::eval
