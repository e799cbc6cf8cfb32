#include "quant/quantize.h"
#include "models/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>

#include "kernels/pack.h"
#include "models/errors.h"
#include "models/export.h"
#include "models/tiny_model.h"

namespace crumb::quant {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// A folder of its own for every test, removed afterwards.
class Quantize : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        std::filesystem::path(testing::TempDir()) / (std::string("crumb_quantize_") + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  int64_t files() const {
    return std::distance(std::filesystem::directory_iterator(folder_),
                         std::filesystem::directory_iterator());
  }

 private:
  std::filesystem::path folder_;
};

QuantizeOptions mixed_options() {
  QuantizeOptions options;
  options.linear.group = 32;
  options.linear.rotation = {32, 5};
  options.embedding.bits = 8;
  options.embedding.grid = kernels::Grid::kAsym;
  options.head.bits = 3;
  options.head.group = 0;
  options.threads = 2;
  return options;
}

models::SourceModel untied_source() {
  models::TinyOptions tiny;
  tiny.tied_head = false;
  return models::tiny_model(tiny);
}

std::vector<float> original(const models::SourceModel& source, const models::TensorInfo& tensor) {
  int64_t n = 1;
  for (const int64_t d : tensor.shape) n *= d;
  std::vector<float> w(static_cast<std::size_t>(n));
  source.read(tensor.name, w);
  return w;
}

// H S applied to a row is undone by S H.
void rotate_back(std::span<float> row, const models::Rotation& rotation) {
  const std::vector<float> ones(row.size(), 1.0f);
  rotate_row(row, rotation, ones);
  const auto signs = models::rotation_signs(rotation, std::ssize(row));
  for (std::size_t k = 0; k < row.size(); ++k) row[k] *= signs[k];
}

TEST_F(Quantize, FileHoldsTheModelWithinTheReportedError) {
  const auto source = untied_source();
  const auto report = quantize(source, mixed_options(), path("m.crumb"), {});
  std::map<std::string, Distortion> reported;
  for (const auto& tensor : report.tensors) reported[tensor.name] = tensor.distortion;
  const auto checkpoint = models::Checkpoint::open(path("m.crumb"));
  EXPECT_TRUE(checkpoint.verify().empty());
  EXPECT_EQ(report.file_bytes, std::filesystem::file_size(path("m.crumb")));
  for (const auto& tensor : models::tensor_table(source.config)) {
    SCOPED_TRACE(tensor.name);
    const auto w = original(source, tensor);
    if (!models::may_be_quantized(tensor.role)) {
      const auto stored = checkpoint.vector(tensor.name);
      ASSERT_EQ(stored.size(), w.size());
      EXPECT_TRUE(std::equal(stored.begin(), stored.end(), w.begin()));
      continue;
    }
    const models::MatrixView stored = checkpoint.matrix(tensor.name);
    const auto K = static_cast<std::size_t>(tensor.shape[1]);
    double error = 0;
    double energy = 0;
    std::vector<float> row(K);
    for (int64_t n = 0; n < tensor.shape[0]; ++n) {
      models::dequantize_row(stored.bands, n, row);
      if (stored.rotation.hadamard != 0) rotate_back(row, stored.rotation);
      for (std::size_t k = 0; k < K; ++k) {
        const double x = w[static_cast<std::size_t>(n) * K + k];
        error += (x - row[k]) * (x - row[k]);
        energy += x * x;
      }
    }
    const double relative = std::sqrt(error / energy);
    EXPECT_NEAR(relative, reported.at(tensor.name).relative_error, 1e-5);
    const double limit[] = {0, 0, 0.5, 0.25, 0.12, 0, 0, 0, 0.01};  // of 2, 3, 4, 8 bits
    EXPECT_LT(relative, limit[stored.bands[0].bits]);
    EXPECT_GT(relative, 0);
  }
}

TEST_F(Quantize, PlanBytesAreFileBytes) {
  const auto source = untied_source();
  for (const bool floats : {false, true}) {
    QuantizeOptions options = mixed_options();
    if (floats) options.embedding.bits = 32;
    const auto report = quantize(source, options, path("m.crumb"), {});
    const std::string file = read_file(path("m.crumb"));
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
    const Json header = Json::parse(file.substr(8, header_bytes));
    const auto stored = [&](const std::string& name) {
      if (!header.contains(name)) return int64_t{0};
      const auto& offsets = header[name]["data_offsets"];
      return offsets[1].get<int64_t>() - offsets[0].get<int64_t>();
    };
    int64_t total = 0;
    for (const PlanRow& row : report.plan.rows) {
      int64_t bytes = stored(row.tensor.name);
      for (const char* part : {".codes", ".scales", ".zeros"})
        bytes += stored(row.tensor.name + part);
      EXPECT_EQ(bytes, row.bytes) << row.tensor.name;
      total += row.bytes;
    }
    EXPECT_EQ(total, report.plan.bytes);
    EXPECT_LE(static_cast<uint64_t>(total), report.file_bytes - header_bytes - 8);
  }
}

TEST_F(Quantize, StoredPlanIsThePlan) {
  const auto source = untied_source();
  const Plan plan = quantize(source, mixed_options(), path("m.crumb"), {}).plan;
  const Plan stored = plan_of(models::Checkpoint::open(path("m.crumb")));
  ASSERT_EQ(stored.rows.size(), plan.rows.size());
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const models::MatrixPlan& a = plan.rows[i].matrix;
    const models::MatrixPlan& b = stored.rows[i].matrix;
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.bits, b.bits);
    EXPECT_EQ(a.group, b.group);
    EXPECT_EQ(a.grid, b.grid);
    EXPECT_EQ(a.rotation, b.rotation);
    EXPECT_EQ(plan.rows[i].bytes, stored.rows[i].bytes);
  }
  EXPECT_EQ(plan.total_bpw, stored.total_bpw);
  EXPECT_EQ(plan.linear_bpw, stored.linear_bpw);
  EXPECT_EQ(plan.head_bits, stored.head_bits);
}

TEST_F(Quantize, SameBytesWhateverTheThreads) {
  const auto source = untied_source();
  QuantizeOptions options = mixed_options();
  options.threads = 1;
  quantize(source, options, path("one.crumb"), {});
  for (const int threads : {2, 5, 0}) {
    options.threads = threads;
    quantize(source, options, path("many.crumb"), {});
    EXPECT_EQ(read_file(path("one.crumb")), read_file(path("many.crumb"))) << threads << " threads";
  }
}

TEST_F(Quantize, RecipeAndReportSayWhatWasDone) {
  const auto source = models::tiny_model();
  QuantizeOptions options = mixed_options();
  const auto report = quantize(source, options, path("m.crumb"), {});
  EXPECT_EQ(models::Checkpoint::open(path("m.crumb")).metadata().at("recipe"), report.recipe);
  const Json recipe = Json::parse(report.recipe);
  EXPECT_EQ(recipe["schema"], "crumb.recipe/2");
  EXPECT_EQ(recipe["source"]["hash"], source.hash);
  EXPECT_EQ(recipe["source"]["weights"], source.description);
  EXPECT_THAT(recipe["program"].get<std::string>(), testing::StartsWith("crumb "));
  ASSERT_EQ(recipe["stages"].size(), 2u);  // a tied head has no stage of its own
  const Json& linear = recipe["stages"][1];
  EXPECT_EQ(linear["stage"], "round");
  EXPECT_EQ(linear["rounding"], "nearest");
  EXPECT_EQ(linear["tensors"], "linear");
  EXPECT_EQ(linear["bits"], 4);
  EXPECT_EQ(linear["group"], 32);
  EXPECT_EQ(linear["grid"], "seq");
  EXPECT_EQ(linear["rule"], "mse");
  EXPECT_EQ(linear["rotation"]["hadamard"], 32);
  EXPECT_EQ(linear["rotation"]["seed"], 5);

  const Json json = Json::parse(to_json(report, source));
  EXPECT_EQ(json["schema"], "crumb.quantize/1");
  for (const char* field : {"config", "file_bytes", "linear_bpw", "head_bits", "total_bpw",
                            "tensors", "recipe", "seconds", "peak_rss_bytes"})
    EXPECT_TRUE(json.contains(field)) << field;
  EXPECT_EQ(json["config"]["vocab"], 300);
  EXPECT_EQ(json["tensors"].size(), models::tensor_table(source.config).size());
  for (const Json& tensor : json["tensors"])
    for (const char* field : {"name", "shape", "bits", "group", "grid", "bytes"})
      EXPECT_TRUE(tensor.contains(field)) << field;
  EXPECT_EQ(json["tensors"][0]["grid"], "asym");
  EXPECT_GT(json["peak_rss_bytes"].get<int64_t>(), 1 << 20);
}

TEST_F(Quantize, ProgressCountsAllWeights) {
  const auto source = models::tiny_model();
  std::vector<std::string> items;
  int64_t last = -1;
  int64_t total = 0;
  QuantizeHooks hooks;
  hooks.progress = [&](const Progress& p) {
    EXPECT_EQ(p.stage, "quantize");
    EXPECT_GT(p.done, last);
    last = p.done;
    total = p.total;
    items.emplace_back(p.item);
    return true;
  };
  quantize(source, mixed_options(), path("m.crumb"), hooks);
  EXPECT_EQ(last, total);
  std::vector<std::string> expected;
  for (const auto& tensor : models::tensor_table(source.config)) expected.push_back(tensor.name);
  expected.emplace_back();
  EXPECT_EQ(items, expected);
}

TEST_F(Quantize, InterruptedLeavesOnlyTheOldFile) {
  const auto source = models::tiny_model();
  std::ofstream(path("m.crumb")) << "old";
  const int calls = static_cast<int>(models::tensor_table(source.config).size()) + 1;
  for (int stop = 1; stop <= calls; ++stop) {
    int call = 0;
    QuantizeHooks hooks;
    hooks.progress = [&](const Progress&) { return ++call < stop; };
    EXPECT_THROW(quantize(source, mixed_options(), path("m.crumb"), hooks), Interrupted);
    EXPECT_EQ(read_file(path("m.crumb")), "old");
    EXPECT_EQ(files(), 1);
  }
}

TEST_F(Quantize, NotFiniteWeightsStopTheJob) {
  for (const char* name :
       {"model.layers.1.mlp.down_proj", "model.layers.0.input_layernorm.weight"}) {
    auto source = models::tiny_model();
    const auto read = source.read;
    source.read = [&](std::string_view tensor, std::span<float> out) {
      read(tensor, out);
      if (tensor == name) out[out.size() - 1] = std::numeric_limits<float>::quiet_NaN();
    };
    try {
      quantize(source, mixed_options(), path("m.crumb"), {});
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kNumeric);
      EXPECT_THAT(e.what(), HasSubstr(name));
      EXPECT_THAT(e.what(), HasSubstr("row"));
    }
    EXPECT_EQ(files(), 0);
  }
}

TEST_F(Quantize, RefusesToReplaceItsSource) {
  models::write_gguf(models::tiny_model(), path("source.gguf"));
  std::filesystem::create_hard_link(path("source.gguf"), path("link.gguf"));
  const std::string before = read_file(path("source.gguf"));
  const auto source = models::open_source(path("source.gguf"));
  QuantizeOptions options = mixed_options();
  options.source_path = path("source.gguf");
  for (const char* output : {"source.gguf", "link.gguf", "./source.gguf"}) {
    try {
      quantize(source, options, path(output), {});
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kUsage);
      EXPECT_THAT(e.what(), HasSubstr("source.gguf"));
    }
  }
  EXPECT_EQ(read_file(path("source.gguf")), before);
  EXPECT_EQ(files(), 2);
  quantize(source, options, path("other.crumb"), {});
  EXPECT_EQ(files(), 3);
}

TEST_F(Quantize, FloatsStayWhatTheyAre) {
  const auto source = models::tiny_model();
  QuantizeOptions options;
  options.linear.bits = options.embedding.bits = options.head.bits = 32;
  const auto report = quantize(source, options, path("m.crumb"), {});
  EXPECT_TRUE(report.tensors.empty());
  EXPECT_EQ(Json::parse(report.recipe)["stages"][0]["stage"], "float");
  const auto again = models::open_source(path("m.crumb"));
  for (const auto& tensor : models::tensor_table(source.config))
    EXPECT_EQ(original(source, tensor), original(again, tensor)) << tensor.name;
}

}  // namespace
}  // namespace crumb::quant
