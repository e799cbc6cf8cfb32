// Whole tasks on the tiny model: kept answers, resuming, threads, reports.
#include "bench/eval/run_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "bench/eval/fingerprint.h"
#include "bench/eval/likelihood.h"
#include "bench/eval/perplexity.h"
#include "bench/eval/report.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/text.h"
#include "tests/eval/tiny_engine.h"
#include "tests/support/temp_dir.h"

namespace crumb::eval {
namespace {

namespace fs = std::filesystem;

// Two of the tasks' files, invented.
class RunTask : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_.file("piqa"));
    fs::create_directories(folder_.file("bbq"));
    fs::create_directories(folder_.file("wikitext2"));
    std::string piqa, bbq;
    for (int i = 0; i < 12; ++i) {
      const std::string n = std::to_string(i);
      piqa += R"({"id":"piqa/)" + n + R"(","question":"do )" +
              some_text(8 + static_cast<std::size_t>(i)) + R"(","choices":["yes )" + n +
              R"(","no, not at all"],"answer":)" + std::to_string(i % 2) + "}\n";
      bbq +=
          R"({"id":"bbq/)" + n + R"(","category":")" + (i % 3 == 0 ? "Age" : "Religion") +
          R"(","condition":")" + (i % 2 == 0 ? "ambig" : "disambig") +
          R"(","polarity":"neg","context":"a","question":"who )" + n +
          R"(?","choices":["A","B","C"],"answer":2,"choice_tags":["old","new","unknown"],"stereotyped_groups":["old"]})"
          "\n";
    }
    models::write_file(folder_.file("piqa/dev.jsonl"), piqa);
    models::write_file(folder_.file("bbq/dev.jsonl"), bbq);
    models::write_file(folder_.file("wikitext2/test_half_a.raw"), some_text(600));
    options_.data = folder_.dir().string();
    options_.model_key = "tiny";
    options_.window = 64;
  }
  TaskRun run(const Engine& engine, const char* task, const ProgressFn& progress = {}) {
    return run_task(engine.shared_from_this(), find_task(task), options_, progress);
  }
  std::string report(const Engine& engine, const Engine* reference = nullptr) {
    Report report;
    for (const char* name : {"piqa", "bbq", "wikitext2"}) {
      const TaskRun one = run(engine, name);
      std::optional<TaskRun> other;
      if (reference != nullptr) {
        options_.model_key = "reference";
        other = run(*reference, name);
        options_.model_key = "tiny";
      }
      report.tasks.push_back(report_task(one, other ? &*other : nullptr, false, 1));
    }
    return to_json(report, true);
  }

  test::TempDir folder_;
  RunOptions options_;
};

TEST_F(RunTask, AnswersAreThoseOfTheScorerInTheFilesOrder) {
  const auto engine = tiny_engine();
  const TaskRun all = run(*engine, "bbq");
  ASSERT_EQ(all.results.size(), 12u);
  EXPECT_EQ(all.asked, 12);
  EXPECT_EQ(all.available, 12);
  const Task& task = find_task("bbq");
  for (std::size_t i = 0; i < all.records.size(); ++i) {
    EXPECT_EQ(all.results[i].id, all.records[i].id());
    LikelihoodScorer fresh(engine, options_.kv);
    EXPECT_EQ(all.results[i].choices, fresh.score(task.question(all.records[i], {})));
  }
  options_.limit = 5;
  const TaskRun five = run(*engine, "bbq");
  EXPECT_EQ(five.results, std::vector<ItemResult>(all.results.begin(), all.results.begin() + 5));
  EXPECT_EQ(five.available, 12);
}

TEST_F(RunTask, AStoppedRunGoesOnAndGivesTheSameReport) {
  const auto engine = tiny_engine();
  const std::string whole = report(*engine);
  options_.cache = folder_.file("cache");
  for (int64_t stop = 1; stop < 6; stop += 4)
    for (const char* name : {"piqa", "bbq"}) {
      const auto interrupt = [&](const Progress& progress) { return progress.done < stop; };
      try {
        run(*engine, name, interrupt);
      } catch (const Interrupted&) {
      }
    }
  const TaskRun rest = run(*engine, "piqa");
  EXPECT_GT(rest.asked, 0);
  EXPECT_LT(rest.asked, 12);
  EXPECT_EQ(report(*engine), whole);
  EXPECT_EQ(run(*engine, "piqa").asked, 0);
  EXPECT_EQ(report(*engine), whole);
}

TEST_F(RunTask, KeptAnswersOfAnotherModelOrCacheTypeAreNotUsed) {
  const auto engine = tiny_engine();
  options_.cache = folder_.file("cache");
  EXPECT_EQ(run(*engine, "piqa").asked, 12);
  options_.kv = kernels::KvType::kF32;
  EXPECT_EQ(run(*engine, "piqa").asked, 12);
  options_.kv = kernels::KvType::kI8;
  options_.model_key = "another";
  EXPECT_EQ(run(*engine, "piqa").asked, 12);
  options_.model_key = "tiny";
  EXPECT_EQ(run(*engine, "piqa").asked, 0);
  // Nor those to another question of the same name, while the others are.
  std::string data = models::read_text(folder_.file("piqa/dev.jsonl"));
  data.replace(data.find("yes 0"), 5, "yes 9");
  models::write_file(folder_.file("piqa/dev.jsonl"), data);
  EXPECT_EQ(run(*engine, "piqa").asked, 1);
}

TEST_F(RunTask, DamagedCacheIsSaidAndNotUsed) {
  const auto engine = tiny_engine();
  options_.cache = folder_.file("cache");
  const TaskRun good = run(*engine, "piqa");
  const std::string path = fs::directory_iterator(folder_.file("cache"))->path().string();
  const std::string text = models::read_text(path);
  const std::string key_line = text.substr(0, text.find('\n') + 1);
  for (const std::string& damaged :
       {std::string("{"), text.substr(0, text.size() - 20), std::string(), std::string("\n"),
        key_line + R"({"id":"piqa/0","prompt":"0","log_p":[1],"tokens":[1,2],"greedy":[1,0]})",
        key_line + R"({"id":"piqa/0","prompt":"0","log_p":[],"tokens":[],"greedy":[]})",
        key_line + R"({"id":"piqa/0","prompt":"0","texts":["a"],"tokens":[1],"reasons":[9]})",
        key_line + R"({"id":"piqa/0","prompt":"0","log_p":["x"],"tokens":[1],"greedy":[1]})"}) {
    models::write_file(path, damaged);
    const TaskRun again = run(*engine, "piqa");
    EXPECT_EQ(again.asked, 12) << damaged;
    EXPECT_THAT(again.notices, testing::ElementsAre(testing::HasSubstr(path)));
    EXPECT_EQ(again.results, good.results);
  }
}

TEST_F(RunTask, ReportsAreEqualForAnyNumberOfThreads) {
  const auto one = tiny_engine(1, 1), all = tiny_engine(1, 0), three = tiny_engine(1, 3);
  const auto reference = tiny_engine(2, 1);
  const std::string text = report(*one, reference.get());
  EXPECT_EQ(text, report(*all, reference.get()));
  EXPECT_EQ(text, report(*three, reference.get()));
}

TEST_F(RunTask, TextTaskIsPerplexity) {
  const auto engine = tiny_engine();
  const TaskRun task = run(*engine, "wikitext2");
  const TaskReport report = report_task(task, nullptr, false, 1);
  WindowOptions window;
  window.window = 64;
  const auto expected = perplexity(*engine, some_text(600), window, {});
  EXPECT_NEAR(find(report.metrics, "ppl")->value, expected.ppl, 1e-9 * expected.ppl);
  EXPECT_EQ(report.n, expected.windows);
  EXPECT_EQ(find(report.metrics, "nll")->weight, static_cast<double>(expected.tokens));
}

TEST_F(RunTask, AModelAgainstItselfDoesNotDiffer) {
  const auto engine = tiny_engine();
  const TaskRun task = run(*engine, "piqa");
  const TaskReport report = report_task(task, &task, false, 1);
  ASSERT_TRUE(report.reference);
  EXPECT_EQ(report.reference->paired.delta, 0);
  EXPECT_EQ(report.reference->paired.flips->won, 0);
  EXPECT_EQ(report.reference->paired.flips->agreement, 1);
  EXPECT_EQ(*report.reference->same_choice, 1);
  EXPECT_EQ(report.reference->nll->delta, 0);
  EXPECT_THAT(report.reference->other_names, testing::ElementsAre("acc"));
}

TEST_F(RunTask, ReportIsReadBackAndRefusedWhenDamaged) {
  const auto engine = tiny_engine();
  const auto reference = tiny_engine(2);
  const std::string text = report(*engine, reference.get());
  const Report back = report_from_json(text, "r.json");
  ASSERT_EQ(back.tasks.size(), 3u);
  const TaskRun run_again = run(*engine, "piqa");
  const TaskReport direct = report_task(run_again, nullptr, false, 1);
  const auto& piqa = *std::find_if(back.tasks.begin(), back.tasks.end(),
                                   [](const auto& task) { return task.name == "piqa"; });
  EXPECT_EQ(piqa.n, 12);
  EXPECT_EQ(find(piqa.metrics, "acc_norm")->value, find(direct.metrics, "acc_norm")->value);
  ASSERT_EQ(piqa.items.size(), direct.items.size());
  for (std::size_t i = 0; i < piqa.items.size(); ++i) {
    EXPECT_EQ(piqa.items[i].id, direct.items[i].id);
    EXPECT_EQ(piqa.items[i].value, direct.items[i].value);
    EXPECT_EQ(piqa.items[i].nll, direct.items[i].nll);
    EXPECT_EQ(piqa.items[i].choice, direct.items[i].choice);
  }
  const auto paired = compare_reports(piqa, direct, 1);
  ASSERT_TRUE(paired);
  EXPECT_EQ(paired->paired.delta, 0);
  for (std::size_t cut = 0; cut < text.size(); cut += 97)
    EXPECT_THROW(report_from_json(text.substr(0, cut), "r.json"), FormatError);
  for (const auto& [from, to] : {std::pair{"\"schema\":\"crumb", "\"schema\":\"other"},
                                 {"\"n\":12", "\"n\":-1"},
                                 {"\"weight\":1.0", "\"weight\":-1.0"},
                                 {"\"floors\":{", "\"floors\":1,\"x\":{"}}) {
    std::string changed = text;
    const auto at = changed.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    changed.replace(at, std::string(from).size(), to);
    EXPECT_THROW(report_from_json(changed, "r.json"), FormatError) << to;
  }
}

TEST_F(RunTask, MissingDataIsAnError) {
  EXPECT_THROW(run(*tiny_engine(), "copa"), IoError);
  EXPECT_THROW(find_task("nonsense"), Error);
}

TEST(Fingerprint, DependsOnWeightsAndCacheTypeNotOnThreads) {
  const auto f32 = kernels::KvType::kF32;
  const std::string one = fingerprint(*tiny_engine(1, 1), f32);
  EXPECT_EQ(one, fingerprint(*tiny_engine(1, 2), f32));
  EXPECT_NE(one, fingerprint(*tiny_engine(2, 1), f32));
  EXPECT_NE(one, fingerprint(*tiny_engine(1, 1), kernels::KvType::kI8));
}

}  // namespace
}  // namespace crumb::eval
