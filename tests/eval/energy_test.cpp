#include "bench/eval/energy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "models/file_writer.h"
#include "tests/support/temp_dir.h"

namespace crumb::eval {
namespace {

// Counters as Linux shows them, invented.
class Energy : public testing::Test {
 protected:
  void counter(const std::string& name, const std::string& value) {
    std::filesystem::create_directories(folder_.dir() / name);
    models::write_file(folder_.file(name + "/energy_uj"), value);
    models::write_file(folder_.file(name + "/max_energy_range_uj"), "1000000\n");
  }
  EnergyMeter meter() const { return EnergyMeter(folder_.dir().string()); }

  test::TempDir folder_;
};

TEST_F(Energy, SumsPackagesAndNotTheirParts) {
  counter("intel-rapl:0", "500000\n");
  counter("intel-rapl:1", "900000\n");
  counter("intel-rapl:0:0", "7\n");
  counter("intel-rapl", "7\n");
  EnergyMeter energy = meter();
  ASSERT_TRUE(energy.readable()) << energy.note();
  energy.start();
  counter("intel-rapl:0", "750000\n");
  counter("intel-rapl:1", "100000\n");  // passed its end
  counter("intel-rapl:0:0", "900000\n");
  EXPECT_NEAR(energy.joules(), 0.25 + 0.2, 1e-12);
}

TEST_F(Energy, SaysWhyNot) {
  EXPECT_FALSE(meter().readable());
  EXPECT_THAT(meter().note(), testing::HasSubstr("no intel-rapl packages"));
  counter("intel-rapl:0", "not a number");
  EXPECT_THAT(meter().note(), testing::HasSubstr("energy_uj cannot be read"));
  EXPECT_FALSE(EnergyMeter("/nonexistent").readable());
}

}  // namespace
}  // namespace crumb::eval
