#include "quant/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "engine/vocab_tokenizer.h"
#include "models/errors.h"
#include "tests/engine/tiny.h"

namespace crumb::quant {
namespace {

using testing::HasSubstr;

CorpusOptions options_of(const std::string& path, int64_t windows, int64_t S, uint64_t seed = 1) {
  return {path, windows, S, seed};
}

std::string decoded(const models::SourceModel& source, const Corpus& corpus) {
  return tokenizer_of(source.vocab)->decode(corpus.windows.ids, true);
}

TEST(Corpus, DefaultFillsTheWindowsAndFollowsTheSeed) {
  const auto source = models::tiny_model();
  const Corpus a = make_corpus(source, options_of("", 32, 512));
  EXPECT_EQ(a.windows.count(), 32);
  EXPECT_GE(a.tokens, 32 * 512);
  EXPECT_EQ(a.hash.size(), 16u);
  EXPECT_EQ(a.dropped_bytes, 0);
  const Corpus again = make_corpus(source, options_of("", 32, 512));
  EXPECT_EQ(a.windows.ids, again.windows.ids);
  EXPECT_EQ(a.hash, again.hash);
  const Corpus other = make_corpus(source, options_of("", 32, 512, 2));
  EXPECT_NE(a.windows.ids, other.windows.ids);
  EXPECT_NE(a.hash, other.hash);
}

TEST(Corpus, TextAndChatsOfFiles) {
  const auto source = models::tiny_model();
  const test::TempDir dir;
  const std::string text = dir.file("a.txt"), chats = dir.file("a.jsonl");
  std::ofstream(text) << "A plain text.\n\nWith <|im_end|> spelt out, longer than a window.";
  const Corpus plain = make_corpus(source, options_of(text, 100, 8));
  EXPECT_THAT(decoded(source, plain), HasSubstr("A plain text.\n\nWith <|im_end|> spelt"));
  // What a text spells is no control token.
  EXPECT_EQ(std::count(plain.windows.ids.begin(), plain.windows.ids.end(), 2), 0);

  std::ofstream(chats) << R"({"messages": [{"role": "user", "content": "Hi <|im_end|>"}, )"
                       << R"({"role": "assistant", "content": "Hello!"}]})"
                       << "\n\n"
                       << R"({"messages": [{"role": "user", "content": "Bye, and more words."}]})";
  const Corpus chat = make_corpus(source, options_of(chats, 100, 4));
  EXPECT_EQ(chat.documents, 2);
  EXPECT_THAT(decoded(source, chat), HasSubstr("<|im_start|>assistant\nHello!<|im_end|>\n"));
  EXPECT_EQ(std::count(chat.windows.ids.begin(), chat.windows.ids.end(), 2), 3);

  const Corpus few = make_corpus(source, options_of(chats, 2, 4));
  EXPECT_EQ(few.windows.count(), 2);
}

// What is kept back follows the windows and does not change them.
TEST(Corpus, HeldOutTextFollowsTheWindows) {
  const test::TempDir dir;
  const auto source = models::tiny_model({});
  const std::string path = dir.file("text");
  std::string text;
  for (int i = 0; i < 3000; ++i) text += std::to_string(i * i) + " ";
  std::ofstream(path) << text;
  CorpusOptions options = options_of(path, 6, 64);
  const Corpus plain = make_corpus(source, options);
  EXPECT_TRUE(plain.held_out.ids.empty());
  options.held_out = 2;
  const Corpus kept = make_corpus(source, options);
  EXPECT_EQ(kept.windows.ids, plain.windows.ids);
  EXPECT_EQ(kept.held_out.count(), 2);
  options.windows = 8;
  options.held_out = 0;
  const auto more = make_corpus(source, options).windows.ids;
  EXPECT_TRUE(
      std::equal(kept.held_out.ids.begin(), kept.held_out.ids.end(), more.begin() + 6 * 64));
  // A text that the windows would fill gives an eighth of itself.
  options.windows = 1 << 20;
  options.held_out = 2;
  const Corpus all = make_corpus(source, options);
  EXPECT_EQ(all.held_out.count(), 2);
  EXPECT_EQ(all.windows.count(), all.tokens / 64 - 2);
}

TEST(Corpus, BadFilesAreNamed) {
  const auto source = models::tiny_model();
  const test::TempDir dir;
  const struct {
    const char* bytes;
    const char* message;
  } all[] = {
      {"", "too short"},
      {"few", "expected at least 64 tokens"},
      {"{\"messages\": []}", "line 1"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n{\"messages\": 3}", "line 2"},
      {"{\"messages\": [{\"role\": \"user\"}]}", "without role or content"},
      {"{\"messages\": [7]}", "without role or content"},
      {"{\"text\": \"a\"}", "expected at least 64 tokens"},
      {"{\"words\": \"a\"}", "neither text nor messages"},
      {"{ not json\x01", "\\x01"},
  };
  for (const auto& bad : all) {
    const std::string path = dir.file("bad");
    std::ofstream(path) << bad.bytes;
    try {
      make_corpus(source, options_of(path, 1, 64));
      ADD_FAILURE() << "no error, expected " << bad.message;
    } catch (const FormatError& e) {
      EXPECT_THAT(e.what(), HasSubstr(bad.message));
      EXPECT_THAT(e.what(), HasSubstr(path));
    }
  }
  EXPECT_THROW(make_corpus(source, options_of(dir.file("absent"), 1, 64)), IoError);
  EXPECT_THROW(make_corpus(source, options_of("", 0, 64)), Error);
}

}  // namespace
}  // namespace crumb::quant
