#include "quant/recipe.h"
#include "models/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/errors.h"
#include "quant/presets.h"
#include "tests/quant/calibrated_job.h"

namespace crumb::quant {
namespace {

using Json = nlohmann::ordered_json;
using test_jobs::calibrated;
using test_jobs::file_bytes;
using test_jobs::rotated_ldlq;
using testing::AllOf;
using testing::HasSubstr;

class RecipeTest : public testing::Test {
 protected:
  std::string recipe_of(const QuantizeOptions& options) { return recipe_json(source_, options); }
  void expect_refusal(const std::string& text, const std::string& field) {
    try {
      parse_recipe(text, "r.json");
      ADD_FAILURE() << text;
    } catch (const FormatError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("r.json"), HasSubstr(field)));
    }
  }
  models::SourceModel source_ = models::tiny_model({});
};

TEST_F(RecipeTest, EveryWayOfEqualisingComesBack) {
  for (const auto& [name, method] : kEqualiseMethods) {
    QuantizeOptions options;
    options.equalise.method = method;
    options.equalise.sinkhorn = {7, 32};
    options.equalise.shared = SharedScale::kMean;
    options.equalise.repeats = 3;
    options.equalise.points = 11;
    options.equalise.rows = 99;
    options.equalise.by_weight = true;
    options.equalise.norm = OutputNorm::kRelative;
    options.equalise.back = 2;
    const std::string written = recipe_of(options);
    EXPECT_EQ(recipe_of(parse_recipe(written, "r.json").options), written) << name;
  }
}

TEST_F(RecipeTest, EveryFitComesBack) {
  QuantizeOptions options = test_jobs::calibrated(test_jobs::rotated_ldlq(3), source_);
  options.linear.trials = 2;
  options.linear.refits = 1;
  for (const auto& [name, weights] : kTokenWeights) {
    options.fit = {true, weights, 0.5, 0.25};
    const std::string written = recipe_of(options);
    const Recipe back = parse_recipe(written, "r.json");
    EXPECT_TRUE(back.options.fit == options.fit) << name;
    EXPECT_TRUE(back.options.linear == options.linear) << name;
    EXPECT_TRUE(back.options.prefix);
  }
}

TEST_F(RecipeTest, EveryPresetComesBack) {
  for (const Preset& preset : presets()) {
    SCOPED_TRACE(preset.name);
    QuantizeOptions options = preset_options(preset, source_.config, 77);
    options.prefix = options.fit.sequential;
    CalibrationText text;
    text.windows = {4, {1, 2, 3, 4}};
    text.source = kDefaultCorpus;
    text.seed = 5;
    options.calibration = text;
    options.bits["model.layers.0.mlp.down_proj"] = 8;
    options.bands["model.layers.0.mlp.up_proj"] = {{1, 2}, {2, 8}};
    options.allocation = R"({"method":"baq","target_bpw":3.0})";
    const std::string written = recipe_of(options);
    const Recipe back = parse_recipe(written, "r.json");
    EXPECT_TRUE(back.options.linear == options.linear);
    EXPECT_TRUE(back.options.embedding == options.embedding);
    EXPECT_EQ(back.options.bits, options.bits);
    EXPECT_EQ(back.options.bands, options.bands);
    EXPECT_EQ(back.options.prefix, options.prefix);
    EXPECT_TRUE(back.options.fit == options.fit);
    EXPECT_EQ(back.source_hash, source_.hash);
    ASSERT_TRUE(back.calibration.has_value());
    EXPECT_EQ(back.calibration->windows, 1);
    EXPECT_EQ(back.calibration->length, 4);
    EXPECT_EQ(back.calibration->seed, 5u);
    QuantizeOptions again = back.options;
    again.calibration = text;
    EXPECT_EQ(recipe_of(again), written);
  }
}

TEST_F(RecipeTest, StoredInAFileReproducesIt) {
  const test::TempDir dir;
  Method method = rotated_ldlq(2);
  method.order = ColumnOrder::kActOrder;
  method.greedy_passes = 2;
  method.damping = 0.1;
  const QuantizeOptions options = calibrated(method, source_);
  quantize(source_, options, dir.file("a.crumb"), {});
  const auto stored = models::Checkpoint::open(dir.file("a.crumb")).metadata().at("recipe");
  QuantizeOptions again = parse_recipe("{\"recipe\":" + stored + "}", "inspect").options;
  again.calibration = options.calibration;
  again.threads = 3;
  quantize(source_, again, dir.file("b.crumb"), {});
  EXPECT_TRUE(file_bytes(dir.file("a.crumb")) == file_bytes(dir.file("b.crumb")));
}

TEST_F(RecipeTest, HoldsReconstruction) {
  QuantizeOptions options = calibrated(rotated_ldlq(2), source_);
  options.reconstruction.method = Reconstruction::kFlexRound;
  options.reconstruction.kept_back = 2;
  options.reconstruction.epochs = 3;
  options.reconstruction.shift = 0.25;
  const Json written = Json::parse(recipe_of(options));
  const ReconstructOptions read = parse_recipe(written.dump(), "r").options.reconstruction;
  EXPECT_EQ(read.method, Reconstruction::kFlexRound);
  EXPECT_EQ(read.epochs, 3);
  EXPECT_EQ(read.shift, 0.25);
  EXPECT_EQ(read.kept_back, 2);
  // The rates that were used, not "the default".
  EXPECT_EQ(read.weight_rate, with_defaults(options.reconstruction, 6).weight_rate);
  EXPECT_EQ(read.scale_rate, with_defaults(options.reconstruction, 6).scale_rate);
  Json changed = written;
  changed["stages"].back()["method"] = "magic";
  expect_refusal(changed.dump(), "expected none or flexround or lrq or block-ap, found magic");
  changed["stages"].back() = written["stages"].back();
  changed["stages"].back()["epochs"] = 0;
  expect_refusal(changed.dump(), "epochs: expected at least 1");
  changed["stages"].back() = written["stages"].back();
  changed["stages"].back()["shift"] = 1.5;
  expect_refusal(changed.dump(), "shift: expected 0..1");
}

TEST_F(RecipeTest, RefusesWhatItDoesNotUnderstand) {
  const Json good = Json::parse(recipe_of(calibrated(rotated_ldlq(2), source_)));
  EXPECT_NO_THROW(parse_recipe(good.dump(), "r.json"));
  expect_refusal("no json", "JSON");
  expect_refusal("[]", "object");
  const auto with = [&](const std::string& pointer, const Json& value) {
    Json changed = good;
    changed[Json::json_pointer(pointer)] = value;
    return changed.dump();
  };
  expect_refusal(with("/schema", "crumb.recipe/9"), "schema");
  expect_refusal(with("/more", 1), "more");
  expect_refusal(with("/stages/0/rounding", "wild"),
                 "stages[0].rounding: expected nearest or ldlq");
  expect_refusal(with("/stages/1/bits", "four"), "stages[1].bits: expected a whole number");
  expect_refusal(with("/stages/1/bits", 2.5), "stages[1].bits");
  expect_refusal(with("/stages/1/extra", 0), "stages[1].extra");
  expect_refusal(with("/stages/0/tensors", "nose"), "stages[0].tensors");
  expect_refusal(with("/calibration/inputs", "both"), "calibration.inputs");
  QuantizeOptions equalised = calibrated(rotated_ldlq(2), source_);
  equalised.equalise.method = Equalise::kAsinq;
  const Json scaled = Json::parse(recipe_of(equalised));
  ASSERT_EQ(scaled["stages"][0]["stage"], "equalise");
  for (const auto& [name, value] :
       {std::pair{"tile", -1}, {"iterations", 1001}, {"points", 0}, {"rows", -1}, {"back", -1}}) {
    Json changed = scaled;
    changed["stages"][0][name] = value;
    expect_refusal(changed.dump(), std::string("stages[0].") + name);
  }
  for (const auto& [name, value] : good.items()) {
    Json less = good;
    less.erase(name);
    expect_refusal(less.dump(), name);
  }
}

}  // namespace
}  // namespace crumb::quant
