#include "models/file_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "models/errors.h"
#include "tests/models/support.h"

namespace crumb::models {
namespace {

std::string text_of(const std::string& path) {
  const auto bytes = test::read_bytes(path);
  return {bytes.begin(), bytes.end()};
}

std::size_t files_in(const test::TempDir& dir) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(dir.dir())) ++count;
  return count;
}

TEST(FileWriter, WritesOverwritesAndReplaces) {
  const test::TempDir dir;
  const std::string path = dir.file("file");
  write_file(path, "old");
  FileWriter file(path);
  file.write("hello ");
  file.write("world");
  const std::string change = "J";
  file.overwrite(0, {reinterpret_cast<const uint8_t*>(change.data()), 1});
  EXPECT_EQ(file.offset(), 11u);
  EXPECT_THROW(file.overwrite(11, {reinterpret_cast<const uint8_t*>(change.data()), 1}),
               std::logic_error);
  EXPECT_EQ(text_of(path), "old");
  file.commit();
  EXPECT_EQ(text_of(path), "Jello world");
  EXPECT_EQ(files_in(dir), 1u);
  EXPECT_THROW(file.commit(), std::logic_error);
}

TEST(FileWriter, WithoutCommitNothingIsLeft) {
  const test::TempDir dir;
  { FileWriter(dir.file("file")).write("text"); }
  EXPECT_EQ(files_in(dir), 0u);
}

TEST(FileWriter, StaleTemporaryFilesDoNotStandInTheWay) {
  const test::TempDir dir;
  const std::string path = dir.file("file");
  test::write_bytes(path + ".tmp-" + std::to_string(::getpid()), {});
  write_file(path, "text");
  EXPECT_EQ(text_of(path), "text");
}

TEST(FileWriter, ErrorsNameTheFile) {
  const test::TempDir dir;
  const auto message = [](const std::string& path) -> std::string {
    try {
      write_file(path, "text");
    } catch (const IoError& error) {
      return error.what();
    }
    return "";
  };
  const std::string absent = dir.file("absent/file");
  EXPECT_EQ(message(absent), "cannot create file (" + absent + ": No such file or directory)");
  EXPECT_NE(message(dir.dir().string()).find("found a directory"), std::string::npos);
  // Never replaces a device by a file, not even through a link.
  std::filesystem::create_symlink("/dev/full", dir.file("full"));
  EXPECT_NE(message(dir.file("full")).find("found a device"), std::string::npos);
  struct stat status {};
  ASSERT_EQ(::stat("/dev/full", &status), 0);
  EXPECT_TRUE(S_ISCHR(status.st_mode));
}

// Runs `action` in a child process and gives its exit status.
template <class Action>
int in_child(const Action& action) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(action());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}

TEST(FileWriter, AFullDiskIsAnErrorAndKeepsTheOldFile) {
  const test::TempDir dir;
  const std::string path = dir.file("tiny.crumb");
  const SourceModel model = tiny_model();
  const auto plans = test::mixed_plans(model.config);
  const uint64_t size = test::write_crumb(path, model, plans);
  const auto before = test::read_bytes(path);
  // A limit on the size of files fails the write like a full disk does, after a short write.
  for (uint64_t limit : {uint64_t{0}, uint64_t{1000}, size / 3, size - 1}) {
    const int status = in_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit bound{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &bound);
      try {
        test::write_crumb(path, model, plans);
      } catch (const IoError& error) {
        return std::string(error.what()).find(path) != std::string::npos ? 4 : 2;
      }
      return 0;
    });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 4) << "limit " << limit;
    EXPECT_EQ(test::read_bytes(path), before);
    EXPECT_EQ(files_in(dir), 1u);
  }
}

// Killed at any moment, the final name holds the old file, the new file, or nothing.
TEST(FileWriter, AKillLeavesNoWrongFile) {
  const test::TempDir dir;
  const std::string path = dir.file("tiny.crumb");
  const SourceModel model = tiny_model();
  const auto plans = test::mixed_plans(model.config);
  test::write_crumb(path, model, plans);
  const auto whole = test::read_bytes(path);
  std::filesystem::remove(path);
  int absent = 0, present = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      test::write_crumb(path, model, plans);
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(150 * trial));
    ::kill(pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (std::filesystem::exists(path)) {
      ++present;
      EXPECT_EQ(test::read_bytes(path), whole);
      std::filesystem::remove(path);
    } else {
      ++absent;
    }
    // What the killed writer left is no checkpoint: its header is written last.
    for (const auto& entry : std::filesystem::directory_iterator(dir.dir())) {
      const auto left = test::read_bytes(entry.path().string());
      if (left != whole) {
        EXPECT_THROW(Checkpoint::open(entry.path().string()), FormatError);
      }
      std::filesystem::remove(entry.path());
    }
  }
  EXPECT_GT(absent, 0);
  RecordProperty("finished_before_the_kill", std::to_string(present));
}

}  // namespace
}  // namespace crumb::models
