// What a machine has, as its files say, and what is refused.
#include "engine/memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "models/errors.h"

namespace crumb {
namespace {

namespace fs = std::filesystem;

class MachineFiles : public testing::Test {
 protected:
  MachineFiles()
      : root_(fs::temp_directory_path() /
              ("crumb-memory-" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) +
               "-" + ::testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~MachineFiles() override { fs::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  SystemMemory read() const { return system_memory(root_.string()); }

 private:
  fs::path root_;
};

constexpr char kMeminfo[] = "MemTotal:       16000 kB\nMemFree: 1 kB\nMemAvailable:    9000 kB\n";

TEST_F(MachineFiles, PhysicalMemory) {
  write("proc/meminfo", kMeminfo);
  EXPECT_EQ(read().total, 16000 * 1024);
  EXPECT_EQ(read().available, 9000 * 1024);
}

TEST_F(MachineFiles, CgroupsLimit) {
  write("proc/meminfo", kMeminfo);
  write("sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(read().total, 16000 * 1024);
  write("sys/fs/cgroup/memory.max", "8192000\n");
  write("sys/fs/cgroup/memory.current", "4096000\n");
  EXPECT_EQ(read().total, 8192000);
  EXPECT_EQ(read().available, 4096000);
}

TEST_F(MachineFiles, FirstCgroupVersionsLimit) {
  write("proc/meminfo", kMeminfo);
  // The first version says "no limit" by a huge number.
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(read().total, 16000 * 1024);
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "8192001\n");
  EXPECT_EQ(read().total, 8192000);
  EXPECT_EQ(read().available, 0);
}

TEST_F(MachineFiles, NothingKnownRefusesNothing) {
  EXPECT_EQ(read().total, 0);
  EXPECT_NO_THROW(require_memory(int64_t{1} << 60, read(), "a model"));
}

TEST(RequireMemory, RefusesWhatCannotFit) {
  const SystemMemory machine{1000, 10};
  EXPECT_NO_THROW(require_memory(1000, machine, "a model"));  // others may give way
  try {
    require_memory(1001, machine, "model.crumb");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kMemory);
    EXPECT_STREQ(error.what(),
                 "model.crumb cannot fit this machine's memory (expected at most 1000 bytes, found "
                 "1001)");
  }
}

}  // namespace
}  // namespace crumb
