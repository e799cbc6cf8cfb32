#include "quant/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "models/errors.h"

namespace crumb::quant {
namespace {

models::ModelConfig smollm_shape() {
  models::ModelConfig config;
  config.architecture = "llama";
  config.layers = 30;
  config.dim = 576;
  config.ffn = 1536;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.vocab = 49152;
  config.context = 8192;
  return config;
}

QuantizeOptions options_of(int bits, int64_t group) {
  QuantizeOptions options;
  options.linear.bits = bits;
  options.linear.group = group;
  options.embedding.group = 32;
  options.head.group = 32;
  return options;
}

TEST(Plan, BytesByHand) {
  const Plan plan = make_plan(smollm_shape(), options_of(4, 64));
  std::map<std::string, PlanRow> rows;
  for (const PlanRow& row : plan.rows) rows[row.tensor.name] = row;
  // Codes 4 bits a weight, one binary16 a group.
  const PlanRow& q = rows.at("model.layers.0.self_attn.q_proj");
  EXPECT_EQ(q.bytes, 576 * 576 / 2 + 576 * 9 * 2);
  EXPECT_DOUBLE_EQ(q.bpw, 4.25);
  const PlanRow& embedding = rows.at("model.embed_tokens");
  EXPECT_EQ(embedding.bytes, int64_t{49152} * (576 / 2 + 18 * 2));
  const PlanRow& norm = rows.at("model.norm.weight");
  EXPECT_EQ(norm.bytes, 576 * 4);
  EXPECT_EQ(norm.matrix.bits, 32);
  EXPECT_DOUBLE_EQ(plan.linear_bpw, 4.25);
  EXPECT_DOUBLE_EQ(plan.head_bits, 4.5);

  const int64_t linear = int64_t{30} * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576);
  const int64_t all = linear + int64_t{49152} * 576 + 61 * 576;
  const double bits = 4.25 * static_cast<double>(linear) + 4.5 * 49152 * 576 + 32.0 * 61 * 576;
  EXPECT_DOUBLE_EQ(plan.total_bpw, bits / static_cast<double>(all));
  EXPECT_DOUBLE_EQ(static_cast<double>(plan.bytes) * 8, bits);
}

TEST(Plan, WideRowsAreBandsOfTheHead) {
  models::ModelConfig config = smollm_shape();
  config.tied_head = true;
  QuantizeOptions options = options_of(4, 64);
  options.embedding.bits = 4;
  options.embedding.group = 0;
  const int64_t before = make_plan(config, options).bytes;
  widen_head(config, 2048, &options);
  EXPECT_EQ(options.bands, (std::map<std::string, std::vector<models::Band>>{
                               {"model.embed_tokens", {{64, 8}, {1536 - 64, 4}}}}));
  EXPECT_EQ(make_plan(config, options).bytes - before, 2048 * 576 / 2);
  for (const int64_t rows : {int64_t{100}, int64_t{-32}, int64_t{49152}}) {
    QuantizeOptions other = options_of(4, 64);
    EXPECT_THROW(widen_head(config, rows, &other), Error) << rows;
  }
  QuantizeOptions eight = options_of(4, 64);
  eight.embedding.bits = 8;
  widen_head(config, 2048, &eight);
  EXPECT_TRUE(eight.bands.empty());
  config.tied_head = false;
  QuantizeOptions own = options_of(4, 64);
  own.head.bits = 3;
  widen_head(config, 2048, &own);
  EXPECT_EQ(own.bands.at("lm_head").back(), (models::Band{1536 - 64, 3}));
}

TEST(Plan, ScalesARowCostLittle) {
  for (const int bits : {2, 3, 4, 8}) {
    const Plan plan = make_plan(smollm_shape(), options_of(bits, 0));
    EXPECT_NEAR(plan.linear_bpw, bits + 0.023, 0.001);
  }
}

TEST(Plan, AsymStoresZerosAndPartialGroupsCount) {
  QuantizeOptions options = options_of(4, 128);
  options.linear.grid = kernels::Grid::kAsym;
  for (const PlanRow& row : make_plan(smollm_shape(), options).rows)
    if (row.tensor.name == "model.layers.29.mlp.gate_proj") {
      // 576 columns are 4.5 groups of 128: five scales and five zeros a row.
      EXPECT_EQ(row.bytes, 1536 * (576 / 2 + 5 * 3));
    }
}

TEST(Plan, ExecutionOrderAndUntiedHead) {
  models::ModelConfig config = smollm_shape();
  config.tied_head = false;
  QuantizeOptions options = options_of(2, 0);
  options.head.bits = 8;
  options.embedding.bits = 32;
  const Plan plan = make_plan(config, options);
  EXPECT_EQ(plan.rows.front().tensor.name, "model.embed_tokens");
  EXPECT_DOUBLE_EQ(plan.rows.front().bpw, 32);
  EXPECT_EQ(plan.rows.back().tensor.name, "lm_head");
  EXPECT_DOUBLE_EQ(plan.head_bits, 8.5);
}

TEST(Plan, LookupIsNotCalibrated) {
  models::ModelConfig config = smollm_shape();
  config.tied_head = false;
  QuantizeOptions options = options_of(4, 64);
  options.embedding.rule = ScaleRule::kWeighted;
  try {
    make_plan(config, options);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_THAT(e.what(), testing::HasSubstr("model.embed_tokens"));
  }
  config.tied_head = true;
  EXPECT_NO_THROW(make_plan(config, options));
}

TEST(Plan, NamesWhatAMatrixCannotHave) {
  QuantizeOptions options = options_of(4, 64);
  options.linear.rotation.hadamard = 128;  // divides 1536 but not 576
  try {
    make_plan(smollm_shape(), options);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_THAT(e.what(), testing::HasSubstr("model.layers.0.self_attn.q_proj [576, 576]"));
    EXPECT_THAT(e.what(), testing::HasSubstr("found 128"));
  }
  EXPECT_THROW(make_plan(smollm_shape(), options_of(1, 64)), Error);
  EXPECT_THROW(make_plan(smollm_shape(), options_of(4, 16)), Error);
}

}  // namespace
}  // namespace crumb::quant
