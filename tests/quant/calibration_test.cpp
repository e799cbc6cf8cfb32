// Calibration of the tiny model against sums in double, and bit for bit against itself.
#include "quant/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "models/errors.h"
#include "quant/calibration_cache.h"
#include "tests/engine/tiny.h"

namespace crumb::quant {
namespace {

using testing::HasSubstr;
using train::LinearInput;

models::TinyOptions wide() {
  models::TinyOptions options;
  options.ffn = 200;  // more than a tile of columns, and not a multiple of one
  options.layers = 3;
  return options;
}

CalibrationWindows some_windows(int64_t count, int64_t S, int64_t vocab = 300) {
  return {S, test::some_ids(count * S, vocab)};
}

void expect_same(const BlockStatistics& a, const BlockStatistics& b) {
  for (std::size_t i = 0; i < a.inputs.size(); ++i) {
    EXPECT_EQ(a.inputs[i].K, b.inputs[i].K);
    EXPECT_EQ(a.inputs[i].tokens, b.inputs[i].tokens);
    EXPECT_EQ(a.inputs[i].H, b.inputs[i].H);
    EXPECT_EQ(a.inputs[i].mean_abs, b.inputs[i].mean_abs);
    EXPECT_EQ(a.inputs[i].max_abs, b.inputs[i].max_abs);
  }
}

// Block `layer` scaled, as a quantizer changes it.
train::BlockWeights changed(const models::SourceModel& source, int64_t layer) {
  auto weights = train::read_block(source, layer);
  for (float& v : weights.down) v *= 0.9f;
  for (float& v : weights.q) v *= 1.1f;
  return weights;
}

// The inputs of block `layer`'s linears after `before`(layer) blocks, all windows one after
// another.
template <class Before>
std::array<std::vector<float>, 4> slow_inputs(const models::SourceModel& source,
                                              const CalibrationWindows& windows, int64_t layer,
                                              const Before& before) {
  const models::ModelConfig& c = source.config;
  std::vector<float> table(static_cast<std::size_t>(c.vocab * c.dim));
  source.read("model.embed_tokens", table);
  const train::BlockContext context(c, windows.S);
  std::array<std::vector<float>, 4> all;
  for (int64_t w = 0; w < windows.count(); ++w) {
    std::vector<float> x;
    for (int64_t t = 0; t < windows.S; ++t) {
      const auto row =
          table.begin() + windows.ids[static_cast<std::size_t>(w * windows.S + t)] * c.dim;
      x.insert(x.end(), row, row + c.dim);
    }
    train::BlockActivations a(c, windows.S);
    for (int64_t i = 0; i < layer; ++i) train::block_forward(context, before(i), x, a, x);
    train::block_forward(context, train::read_block(source, layer), x, a, x);
    for (const LinearInput input : train::kLinearInputs) {
      const auto values = train::linear_input(a, input);
      auto& to = all[static_cast<std::size_t>(input)];
      to.insert(to.end(), values.begin(), values.end());
    }
  }
  return all;
}

void expect_statistics(const InputStatistics& s, const std::vector<float>& x) {
  const auto K = static_cast<std::size_t>(s.K), T = x.size() / K;
  ASSERT_EQ(s.tokens, static_cast<int64_t>(T));
  std::vector<double> H(K * K), mean(K), most(K);
  for (std::size_t t = 0; t < T; ++t)
    for (std::size_t i = 0; i < K; ++i) {
      const double value = static_cast<double>(x[t * K + i]);
      mean[i] += std::abs(value) / static_cast<double>(T);
      most[i] = std::max(most[i], std::abs(value));
      for (std::size_t j = 0; j < K; ++j)
        H[i * K + j] += value * static_cast<double>(x[t * K + j]) / static_cast<double>(T);
    }
  for (std::size_t i = 0; i < K; ++i) {
    EXPECT_NEAR(static_cast<double>(s.mean_abs[i]), mean[i], 1e-6 * mean[i]);
    EXPECT_EQ(static_cast<double>(s.max_abs[i]), most[i]);
    for (std::size_t j = 0; j < K; ++j) {
      ASSERT_NEAR(s.H[i * K + j], H[i * K + j], 1e-6 * std::sqrt(H[i * K + i] * H[j * K + j]));
      ASSERT_EQ(s.H[i * K + j], s.H[j * K + i]);
    }
  }
}

TEST(Calibration, BothStreamsAgreeWithTheObviousSums) {
  const auto source = models::tiny_model(wide());
  const auto windows = some_windows(5, 33);
  Calibrator calibrator(source, windows, {2});
  for (int64_t layer = 0; !calibrator.done(); ++layer) {
    const CalibrationBlock block = calibrator.next_block();
    ASSERT_EQ(block.layer, layer);
    EXPECT_EQ(block.weights.down, train::read_block(source, layer).down);
    const auto full = slow_inputs(source, windows, layer,
                                  [&](int64_t i) { return train::read_block(source, i); });
    const auto prefix =
        slow_inputs(source, windows, layer, [&](int64_t i) { return changed(source, i); });
    ASSERT_EQ(block.prefix.has_value(), layer > 0);
    for (const LinearInput input : train::kLinearInputs) {
      SCOPED_TRACE(train::linear_input_name(input));
      expect_statistics(block.full->of(input), full[static_cast<std::size_t>(input)]);
      expect_statistics(block.prefix_or_full().of(input), prefix[static_cast<std::size_t>(input)]);
    }
    calibrator.advance(changed(source, layer));
  }
}

std::vector<CalibrationBlock> walk(const models::SourceModel& source,
                                   const CalibrationWindows& windows, CalibrationOptions options,
                                   bool quantized) {
  std::vector<CalibrationBlock> blocks;
  for (Calibrator c(source, windows, options); !c.done();) {
    blocks.push_back(c.next_block());
    if (quantized)
      c.advance(changed(source, blocks.back().layer));
    else
      c.advance();
  }
  return blocks;
}

TEST(Calibration, DoesNotDependOnTheNumberOfThreads) {
  const auto source = models::tiny_model(wide());
  const auto windows = some_windows(7, 40);
  const auto one = walk(source, windows, {1}, true);
  for (const int threads : {2, 3, 16}) {
    const auto many = walk(source, windows, {threads}, true);
    for (std::size_t i = 0; i < one.size(); ++i) {
      expect_same(*one[i].full, *many[i].full);
      expect_same(one[i].prefix_or_full(), many[i].prefix_or_full());
    }
  }
}

TEST(Calibration, UnchangedBlocksKeepTheStreamsTogether) {
  const auto source = models::tiny_model(wide());
  const auto windows = some_windows(3, 20);
  const auto plain = walk(source, windows, {1}, false);
  // A prefix that has diverged in name only: the same weights.
  Calibrator c(source, windows, {1});
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_FALSE(plain[i].prefix);
    const auto block = c.next_block();
    expect_same(*block.full, *plain[i].full);
    expect_same(block.prefix_or_full(), *plain[i].full);
    const auto full = c.full_stream(), prefix = c.prefix_stream();
    EXPECT_TRUE(std::equal(full.begin(), full.end(), prefix.begin(), prefix.end()));
    if (i == 0)
      c.advance(block.weights);
    else
      c.advance();
  }
}

TEST(Calibration, AsksForInterruptionAndCountsWindows) {
  const auto source = models::tiny_model(wide());
  int64_t last = -1, total = 0;
  const auto count = [&](const Progress& p) {
    EXPECT_EQ(p.stage, "calibrate");
    EXPECT_GE(p.done, last);
    last = p.done;
    total = p.total;
    return true;
  };
  Calibrator c(source, some_windows(4, 8), {1}, count);
  while (!c.done()) {
    c.next_block();
    c.advance();
  }
  EXPECT_EQ(last, 3 * 4);
  EXPECT_EQ(total, 3 * 4);
  Calibrator stopped(source, some_windows(4, 8), {1}, [](const Progress&) { return false; });
  EXPECT_THROW(stopped.next_block(), Interrupted);
}

TEST(Calibration, BadWindowsAndWeightsAreNamed) {
  const auto source = models::tiny_model();
  EXPECT_THROW(Calibrator(source, {0, {}}, {}), Error);
  EXPECT_THROW(Calibrator(source, {4, {1, 2, 3}}, {}), Error);
  EXPECT_THROW(Calibrator(source, {2, {1, 300}}, {}), Error);
  EXPECT_THROW(Calibrator(source, {2, {1, -1}}, {}), Error);
  EXPECT_THROW(Calibrator(source, some_windows(1, 257), {}), Error);
  models::SourceModel damaged = source;
  damaged.read = [&](std::string_view name, std::span<float> out) {
    source.read(name, out);
    if (name.find("layers.1.mlp.up") != std::string_view::npos) out[70] = 3e38f;
  };
  Calibrator c(damaged, some_windows(2, 8), {1});
  c.next_block();
  c.advance();
  try {
    c.next_block();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kNumeric);
    EXPECT_THAT(e.what(), HasSubstr("block 1, down_in, column 1"));
  }
}

TEST(Calibration, MemoryCountsWhatIsThere) {
  models::ModelConfig c = models::tiny_model().config;
  const CalibrationMemory m = calibration_memory(c, 6, 10, 2);
  EXPECT_EQ(m.embedding, 300 * 64 * 4);
  EXPECT_EQ(m.streams, 4 * 60 * 64 * 4);
  int64_t floats = 0;
  const auto block = train::zero_block(c);
  for (const auto& tensor : train::block_tensors()) floats += std::ssize(block.*tensor.member);
  EXPECT_EQ(m.weights, 2 * floats * 4);
  // attn_in, mid, mlp_in; q, o_in; k, v; lse; gate, up, down_in
  EXPECT_EQ(m.activations, 4 * 10 * (3 * 64 + 2 * 64 + 2 * 32 + 4 + 3 * 96) * 4);
  EXPECT_EQ(m.statistics, 2 * ((3 * 64 * 64 + 96 * 96) * 8 + (3 * 64 + 96) * 16));
  EXPECT_GE(m.peak(), m.streams + m.statistics);
}

// ---- cache

class CalibrationCacheTest : public testing::Test {
 protected:
  test::TempDir dir_;
  models::SourceModel source_ = models::tiny_model(wide());
  CalibrationWindows windows_ = some_windows(3, 20);
};

TEST_F(CalibrationCacheTest, GivesBackTheSameBits) {
  const CalibrationCache cache(dir_.file("a/b"), source_, windows_);
  EXPECT_FALSE(cache.load(0));
  const auto fresh = walk(source_, windows_, {2, true, &cache}, true);
  const auto again = walk(source_, windows_, {2, true, &cache}, true);
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    expect_same(*cache.load(static_cast<int64_t>(i)), *fresh[i].full);
    expect_same(*again[i].full, *fresh[i].full);
    expect_same(again[i].prefix_or_full(), fresh[i].prefix_or_full());
  }
}

TEST_F(CalibrationCacheTest, GoesOnWhereItWasInterrupted) {
  const auto expected = walk(source_, windows_, {1}, false);
  const CalibrationCache cache(dir_.file("c"), source_, windows_);
  walk(source_, windows_, {1, true, &cache}, false);
  std::filesystem::remove(cache.path(1));
  std::filesystem::remove(cache.path(2));
  const auto resumed = walk(source_, windows_, {1, true, &cache}, false);
  for (std::size_t i = 0; i < expected.size(); ++i)
    expect_same(*resumed[i].full, *expected[i].full);
  EXPECT_TRUE(std::filesystem::exists(cache.path(2)));
}

TEST_F(CalibrationCacheTest, OtherModelsAndWindowsHaveOtherFiles) {
  const CalibrationCache cache(dir_.file("c"), source_, windows_);
  const CalibrationCache ids(dir_.file("c"), source_, some_windows(4, 15));
  const CalibrationCache length(dir_.file("c"), source_, {10, windows_.ids});
  models::SourceModel other = source_;
  other.hash += "0";
  const CalibrationCache model(dir_.file("c"), other, windows_);
  EXPECT_NE(cache.path(0), ids.path(0));  // the same ids, cut elsewhere
  EXPECT_NE(cache.path(0), length.path(0));
  EXPECT_NE(cache.path(0), model.path(0));
  EXPECT_NE(cache.path(0), cache.path(1));
}

std::vector<uint8_t> bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_bytes(const std::string& path, std::span<const uint8_t> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}
// With a checksum that holds, so that what stands behind it is reached.
void write_signed(const std::string& path, std::vector<uint8_t> bytes) {
  const uint64_t sum = XXH3_64bits(bytes.data(), bytes.size() - 8);
  std::memcpy(bytes.data() + bytes.size() - 8, &sum, 8);
  write_bytes(path, bytes);
}

TEST_F(CalibrationCacheTest, DamagedBytesAreRefused) {
  const CalibrationCache cache(dir_.file("c"), source_, windows_);
  walk(source_, windows_, {1, true, &cache}, false);
  const std::string path = cache.path(0);
  const auto good = bytes_of(path);
  const char* stride = std::getenv("CRUMB_HOSTILE_STRIDE");
  const std::size_t step = stride == nullptr ? 997 : 20 * std::strtoul(stride, nullptr, 10) + 1;
  for (std::size_t i = 0; i < good.size(); i += i < 64 ? 1 : step) {
    auto bad = good;
    bad[i] ^= 0x40;
    write_bytes(path, bad);
    EXPECT_THROW(cache.load(0), FormatError) << i;
    write_bytes(path, std::span(good).first(i));
    EXPECT_THROW(cache.load(0), FormatError) << i;
  }
  auto longer = good;
  longer.insert(longer.end() - 8, 4, 0);
  write_signed(path, longer);
  EXPECT_THROW(cache.load(0), FormatError);
  write_bytes(path, good);
  EXPECT_TRUE(cache.load(0));
}

TEST_F(CalibrationCacheTest, SignedNonsenseIsRefused) {
  const CalibrationCache cache(dir_.file("c"), source_, windows_);
  walk(source_, windows_, {1, true, &cache}, false);
  const std::string path = cache.path(0);
  const auto good = bytes_of(path);
  constexpr std::size_t kMean = 8 + 4 * 8, kMax = kMean + 64 * 4, kMoments = kMax + 64 * 4;
  const struct {
    std::size_t at;
    float value;
    const char* message;
  } all[] = {
      {kMean, std::nanf(""), "mean |x|"}, {kMean, -1, "mean |x|"},
      {kMean, 1e9f, "mean |x|"},          {kMax + 4, INFINITY, "max |x|"},
      {kMax + 4, 1e9f, "max |x|"},        {kMoments, -1, "second moment"},
      {kMoments + 4, 1e9f, "second"},     {kMoments + 400, std::nanf(""), "second moment"},
  };
  for (const auto& bad : all) {
    auto bytes = good;
    std::memcpy(bytes.data() + bad.at, &bad.value, 4);
    write_signed(path, bytes);
    try {
      cache.load(0);
      ADD_FAILURE() << "no error, expected " << bad.message;
    } catch (const FormatError& e) {
      EXPECT_THAT(e.what(), HasSubstr(bad.message));
      EXPECT_THAT(e.what(), HasSubstr(path));
    }
  }
  for (const std::size_t field : {8u, 16u, 24u, 32u}) {  // layer, inputs, columns, tokens
    auto bytes = good;
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(field), 8, 0xff);
    write_signed(path, bytes);
    EXPECT_THROW(cache.load(0), FormatError) << field;
  }
}

}  // namespace
}  // namespace crumb::quant
