#include "bench/eval/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/errors.h"
#include "models/file_writer.h"
#include "tests/support/temp_dir.h"

namespace crumb::eval {
namespace {

Record record(const std::string& line) { return {line, "file.jsonl", 7}; }

std::string failure(const std::function<void()>& action) {
  try {
    action();
  } catch (const FormatError& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(Record, GivesFieldsByType) {
  const Record one = record(
      R"({"id":"a/1","q":"what?","choices":["x","yé"],"answer":1,"n":[0,1],"inner":{"labels":[1]},"k":{"b":null}})");
  EXPECT_EQ(one.id(), "a/1");
  EXPECT_EQ(one.text("q"), "what?");
  EXPECT_THAT(one.texts("choices"), testing::ElementsAre("x", "yé"));
  EXPECT_EQ(one.integer("answer", 0, 1), 1);
  EXPECT_THAT(one.integers("n", 0, 1), testing::ElementsAre(0, 1));
  EXPECT_THAT(one.object("inner").integers("labels", 0, 1), testing::ElementsAre(1));
  EXPECT_EQ(one.object("inner").id(), "a/1");
  EXPECT_EQ(one.json("k"), R"({"b":null})");
  EXPECT_TRUE(one.has("k"));
  EXPECT_FALSE(one.has("z"));
}

TEST(Record, NamesTheLineAndTheField) {
  const Record one = record(R"({"id":"a","n":[2],"t":"x"})");
  EXPECT_THAT(failure([&] { one.text("missing"); }),
              testing::AllOf(testing::HasSubstr("file.jsonl"), testing::HasSubstr("line 7"),
                             testing::HasSubstr("missing")));
  EXPECT_THAT(failure([&] { one.integers("n", 0, 1); }), testing::HasSubstr("found 2"));
  EXPECT_THAT(failure([&] { one.texts("n"); }), testing::HasSubstr("texts"));
  EXPECT_THAT(failure([&] { one.texts("t"); }), testing::HasSubstr("array"));
  EXPECT_THAT(failure([&] { one.object("t"); }), testing::HasSubstr("object"));
}

TEST(Record, RefusesHostileLines) {
  for (const std::string line : {"", "x", "[1]", "{\"id\":1}", "{\"id\":\"a\",\"id\":\"b\"}", "{}",
                                 "{\"id\":\"\xff\"}", "{\"id\":\"a\"} {", "\xef\xbb\xbf"})
    EXPECT_THROW(record(line), FormatError) << line;
  EXPECT_THROW(record("{\"id\":\"a\",\"x\":" + std::string(100000, '[')), FormatError);
}

TEST(RecordFile, ReadsLinesAndRefusesWhatIsNotAFileOfRecords) {
  const test::TempDir folder;
  const auto read = [&](const std::string& text) {
    models::write_file(folder.file("f.jsonl"), text);
    return read_records(folder.file("f.jsonl"));
  };
  const RecordFile two = read("{\"id\":\"a\"}\r\n\n{\"id\":\"b\"}");
  EXPECT_EQ(two.records.size(), 2u);
  EXPECT_EQ(two.hash.size(), 32u);
  EXPECT_NE(two.hash, read("{\"id\":\"a\"}\n{\"id\":\"c\"}").hash);
  EXPECT_THROW(read(""), FormatError);
  EXPECT_THROW(read("\n \n"), FormatError);
  EXPECT_THAT(failure([&] { read("{\"id\":\"a\"}\n{\"id\":\"a\"}"); }),
              testing::HasSubstr("line 2"));
  EXPECT_THROW(read_records(folder.file("none.jsonl")), IoError);
}

}  // namespace
}  // namespace crumb::eval
