#include "models/checkpoint.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>

#include "kernels/pack.h"
#include "models/errors.h"
#include "models/safetensors.h"
#include "tests/models/support.h"

namespace crumb::models {
namespace {

using test::random_packed;

template <class T>
std::vector<T> copy(const T* data, std::size_t n) {
  return {data, data + n};
}

// Bands lie one after the other and cover the matrix.
void expect_same(const MatrixView& view, const MatrixPlan& plan, const PackedData& data,
                 const TensorInfo& info) {
  SCOPED_TRACE(info.name);
  const int64_t K = info.shape[1];
  const int64_t scales = kernels::group_count(K, plan.group) * kernels::kStripRows;
  EXPECT_EQ(bands_of(view.bands), bands_of(plan, info.shape[0]));
  int64_t code = 0, scale = 0, rows = 0;
  for (const kernels::PackedMatrix& band : view.bands) {
    const int64_t strips = kernels::strip_count(band.rows);
    const int64_t codes = strips * kernels::strip_code_bytes(K, band.bits);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(band.codes) % 64, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(band.scales) % 64, 0u);
    EXPECT_EQ(0,
              std::memcmp(band.codes, data.codes.data() + code, static_cast<std::size_t>(codes)));
    EXPECT_EQ(0, std::memcmp(band.scales, data.scales.data() + scale,
                             static_cast<std::size_t>(2 * strips * scales)));
    ASSERT_EQ(band.zeros != nullptr, plan.grid == kernels::Grid::kAsym);
    if (band.zeros != nullptr) {
      EXPECT_EQ(0, std::memcmp(band.zeros, data.zeros.data() + scale,
                               static_cast<std::size_t>(strips * scales)));
    }
    EXPECT_EQ(band.cols, K);
    EXPECT_EQ(band.group, plan.group);
    EXPECT_EQ(band.grid, plan.grid);
    code += codes;
    scale += strips * scales;
    rows += band.rows;
  }
  EXPECT_EQ(code, std::ssize(data.codes));
  EXPECT_EQ(rows, info.shape[0]);
}

class RoundTrip : public testing::TestWithParam<TinyOptions> {
 protected:
  static void comes_back(const std::vector<MatrixPlan>& plans);
};

TEST_P(RoundTrip, EverythingComesBack) {
  comes_back(test::mixed_plans(tiny_model(GetParam()).config));
}
TEST_P(RoundTrip, BandsComeBack) { comes_back(test::banded_plans(tiny_model(GetParam()).config)); }

void RoundTrip::comes_back(const std::vector<MatrixPlan>& plans) {
  const test::TempDir dir;
  const std::string path = dir.file("tiny.crumb");
  SourceModel model = tiny_model(GetParam());
  model.generation.temperature = 0.7f;
  model.generation.top_k = 40;
  model.vocab.scores.assign(model.vocab.tokens.size(), -1.5f);
  const uint64_t size = test::write_crumb(path, model, plans);
  EXPECT_EQ(size, std::filesystem::file_size(path));

  const Checkpoint file = Checkpoint::open(path);
  EXPECT_EQ(to_json(file.config()), to_json(model.config));
  EXPECT_EQ(file.vocab().tokens, model.vocab.tokens);
  EXPECT_EQ(file.vocab().types, model.vocab.types);
  EXPECT_EQ(file.vocab().scores, model.vocab.scores);
  EXPECT_EQ(file.vocab().merges, model.vocab.merges);
  EXPECT_EQ(file.vocab().stop, model.vocab.stop);
  EXPECT_EQ(file.vocab().eos, model.vocab.eos);
  EXPECT_EQ(file.chat_template(), model.chat_template);
  EXPECT_EQ(file.generation().temperature, 0.7f);
  EXPECT_EQ(file.generation().top_k, 40);
  EXPECT_LT(file.generation().top_p, 0);
  EXPECT_EQ(file.metadata().at("format"), "crumb/1");
  EXPECT_TRUE(file.verify().empty());
  EXPECT_THROW(file.matrix("nothing"), std::out_of_range);

  std::size_t next = 0;
  for (const TensorInfo& info : tensor_table(model.config)) {
    if (!may_be_quantized(info.role)) {
      const auto values = file.vector(info.name);
      EXPECT_EQ(std::vector<float>(values.begin(), values.end()), test::read_tensor(model, info))
          << info.name;
      continue;
    }
    const MatrixPlan& plan = plans[next];
    const MatrixView view = file.matrix(info.name);
    EXPECT_EQ(view.rotation, plan.rotation);
    if (plan.bits == 32) {
      EXPECT_EQ(std::vector<float>(view.f32.begin(), view.f32.end()),
                test::read_tensor(model, info))
          << info.name;
    } else {
      const PackedData data = random_packed(plan, info.shape[0], info.shape[1], next);
      expect_same(view, plan, data, info);
    }
    ++next;
  }
}

TEST_P(RoundTrip, SameInputSameBytes) {
  const test::TempDir dir;
  const SourceModel model = tiny_model(GetParam());
  const auto plans = test::mixed_plans(model.config);
  test::write_crumb(dir.file("a"), model, plans);
  test::write_crumb(dir.file("b"), model, plans);
  EXPECT_EQ(test::read_bytes(dir.file("a")), test::read_bytes(dir.file("b")));
}

TinyOptions options_of(int64_t dim, int64_t ffn, int64_t head_dim, int64_t vocab, bool tied,
                       bool qwen2) {
  TinyOptions options;
  options.architecture = qwen2 ? "qwen2" : "llama";
  options.qkv_bias = qwen2;
  options.dim = dim;
  options.ffn = ffn;
  options.head_dim = head_dim;
  options.vocab = vocab;
  options.tied_head = tied;
  return options;
}

// 50 and 301 make vectors and matrices whose bytes are no multiple of 64.
INSTANTIATE_TEST_SUITE_P(Options, RoundTrip,
                         testing::Values(options_of(64, 96, 16, 300, true, false),
                                         options_of(48, 160, 12, 301, false, false),
                                         options_of(50, 33, 10, 259, false, true)),
                         [](const auto& param) { return "D" + std::to_string(param.param.dim); });

// The stored matrix meets H S x: reading it as a source must give the matrix that meets x.
TEST(CheckpointSource, UndoesTheRotation) {
  const test::TempDir dir;
  const std::string path = dir.file("tiny.crumb");
  const SourceModel model = tiny_model();
  const auto plans = test::banded_plans(model.config);
  test::write_crumb(path, model, plans);
  const Checkpoint file = Checkpoint::open(path);
  const SourceModel source = open_source(path);
  int rotated = 0;
  for (const TensorInfo& info : tensor_table(model.config)) {
    if (!may_be_quantized(info.role)) continue;
    const MatrixView view = file.matrix(info.name);
    const int64_t K = info.shape[1];
    const auto read = test::read_tensor(source, info);
    const auto signs = rotation_signs(view.rotation, K);
    rotated += view.rotation.hadamard != 0 ? 1 : 0;
    const int64_t n = info.shape[0] - 1;
    std::vector<float> stored(static_cast<std::size_t>(K));
    if (!view.bands.empty()) {
      dequantize_row(view.bands, n, stored);
    } else {
      std::copy_n(view.f32.begin() + n * K, K, stored.begin());
    }
    for (int64_t k = 0; k < K; ++k) {
      // Column k of H S: entry (j, k) is sign_k * (-1)^popcount(j & k) / sqrt(block) inside the
      // block.
      double expected = 0;
      const int64_t block = view.rotation.hadamard;
      if (block == 0) {
        expected = stored[static_cast<std::size_t>(k)];
      } else {
        for (int64_t j = k / block * block; j < k / block * block + block; ++j) {
          const int parity =
              __builtin_popcountll(static_cast<uint64_t>((j % block) & (k % block))) % 2;
          expected += stored[static_cast<std::size_t>(j)] * (parity != 0 ? -1.0 : 1.0) /
                      std::sqrt(static_cast<double>(block));
        }
        expected *= signs[static_cast<std::size_t>(k)];
      }
      EXPECT_NEAR(read[static_cast<std::size_t>(n * K + k)], expected, 1e-5)
          << info.name << " column " << k;
    }
  }
  EXPECT_GT(rotated, 2);
}

// Pinned by FORMAT.md: SplitMix64 with seed 0 starts e220a8397b1dcdaf 6e789e6aa1b965f4
// 06c45d188009454f f88bb8a8724c81ec.
TEST(Rotation, SignsAreTheTopBitsOfSplitMix64) {
  const auto signs = rotation_signs({64, 0}, 4);
  EXPECT_EQ(signs, (std::vector<float>{-1, 1, 1, -1}));
  const auto longer = rotation_signs({64, 12345}, 4096);
  double sum = 0;
  for (const float sign : longer) sum += sign;
  EXPECT_LT(std::fabs(sum), 4 * 64);
}

TEST(Checkpoint, VerifyNamesTheDamagedTensor) {
  const test::TempDir dir;
  const std::string path = dir.file("tiny.crumb");
  const SourceModel model = tiny_model();
  test::write_crumb(path, model, test::mixed_plans(model.config));
  auto bytes = test::read_bytes(path);
  const Safetensors container = parse_safetensors(bytes, path);
  const std::string victim = "model.layers.1.self_attn.v_proj.codes";
  for (const SafetensorsEntry& entry : container.tensors)
    if (entry.name == victim) bytes[8 + container.header.size() + entry.begin + 100] ^= 1;
  test::write_bytes(path, bytes);
  EXPECT_EQ(Checkpoint::open(path).verify(), std::vector<std::string>{victim});
}

// Written by the first version of this format and never again: every later version must read it.
TEST(Checkpoint, ReadsTheCommittedFileOfVersion1) {
  const Checkpoint file = Checkpoint::open(test::golden("tiny_v1.crumb"));
  EXPECT_TRUE(file.verify().empty());
  const SourceModel model = tiny_model(options_of(32, 64, 8, 270, true, false));
  EXPECT_EQ(to_json(file.config()), to_json(model.config));
  EXPECT_EQ(file.vocab().tokens, model.vocab.tokens);
  const auto plans = test::mixed_plans(model.config);
  const MatrixView view = file.matrix(plans[0].name);
  EXPECT_EQ(view.rotation, plans[0].rotation);
  const PackedData data = random_packed(plans[0], model.config.vocab, 32, 0);
  EXPECT_EQ(copy(view.bands[0].codes, data.codes.size()), data.codes);
}

// Makes the committed file; only for a new version of the format, under a new name.
TEST(Checkpoint, DISABLED_WritesTheFileOfVersion1) {
  const SourceModel model = tiny_model(options_of(32, 64, 8, 270, true, false));
  test::write_crumb(test::golden("tiny_v1.crumb"), model, test::mixed_plans(model.config));
}

// Written when bands came, under the same version.
TEST(Checkpoint, ReadsTheCommittedFileWithBands) {
  const Checkpoint file = Checkpoint::open(test::golden("tiny_v1_bands.crumb"));
  EXPECT_TRUE(file.verify().empty());
  EXPECT_EQ(file.metadata().at("required"), "rotation,bands");
  const SourceModel model = tiny_model(options_of(32, 64, 8, 270, true, false));
  const auto plans = test::banded_plans(model.config);
  ASSERT_EQ(plans[0].bands.size(), 3u);
  const TensorInfo embedding = tensor_table(model.config)[0];
  expect_same(file.matrix(plans[0].name), plans[0],
              random_packed(plans[0], model.config.vocab, 32, 0), embedding);
}

TEST(Checkpoint, DISABLED_WritesTheFileWithBands) {
  const SourceModel model = tiny_model(options_of(32, 64, 8, 270, true, false));
  test::write_crumb(test::golden("tiny_v1_bands.crumb"), model, test::banded_plans(model.config));
}

// Changes `from` into `to` of the same length in the header and mends the header's checksum.
std::string error_after(const std::string& path, const std::string& from, const std::string& to) {
  auto bytes = test::read_bytes(path);
  const auto at = std::search(bytes.begin(), bytes.end(), from.begin(), from.end());
  if (at == bytes.end()) return "no " + from;
  std::copy(to.begin(), to.end(), at);
  test::write_bytes(path + ".changed", bytes);
  try {
    Checkpoint::open(path + ".changed");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

TEST(Checkpoint, DefectsAreNamed) {
  const test::TempDir dir;
  const std::string path = dir.file("tiny.crumb");
  const SourceModel model = tiny_model();
  test::write_crumb(path, model, test::mixed_plans(model.config));
  const struct {
    std::string from, to, expected;
  } changes[] = {
      {"crumb/1", "crumb/2", "expected crumb/1, found 'crumb/2'"},
      {"crumb/1", "other/1", "not a .crumb checkpoint"},
      {"\"required\":\"rotation\"", "\"required\":\"rotatiox\"", "found 'rotatiox'"},
      {"\\\"heads\\\":4", "\\\"heads\\\":3", "kv_heads"},
      {"\\\"heads\\\":4", "\\\"heads\\\":8", "record of matrix"},
      {"\\\"grid\\\":\\\"seq\\\"", "\\\"grid\\\":\\\"sec\\\"", "expected seq, lsq or asym"},
      {"\\\"hadamard\\\":32", "\\\"hadamard\\\":33", "power of two"},
      {"\\\"bits\\\":4", "\\\"bits\\\":5", "bits"},
      {"model.norm.weight\":{", "model.norx.weight\":{", "'model.norm.weight'"},
      {"\"license\"", "\"licence\"", "license"},
      {"apache-2.0", "apache-2.1", "header checksum"},
  };
  for (const auto& change : changes) {
    const std::string error = error_after(path, change.from, change.to);
    EXPECT_NE(error.find(change.expected), std::string::npos) << change.from << ": " << error;
  }
}

TEST(Checkpoint, DefectsOfBandsAreNamed) {
  const test::TempDir dir;
  const std::string path = dir.file("tiny.crumb");
  const SourceModel model = tiny_model(options_of(32, 64, 8, 270, true, false));
  test::write_crumb(path, model, test::banded_plans(model.config));
  const struct {
    std::string from, to, expected;
  } changes[] = {
      {"rotation,bands", "rotation      ", "found 'rotation      '"},
      {"\"rotation,bands\"", "\"rotation\"      ", "expected 'bands', which"},
      {"[[1,2],", "[[2,2],", "expected 9 strips, found 10"},
      {"[[1,2],", "[[0,2],", "1..9 strips"},
      {"[[1,2],", "[[1,5],", "2, 3, 4 or 8 bits"},
      {"[[1,2],", "[[1,9],", "2, 3, 4 or 8 bits"},
      {"[[1,2],", "[[1,8],", "neighbours of different bits"},
      {"[[1,2],", "[[1.2],", "pairs"},
      {"[1,8],[7,4]]", "[8,8]]      ", "bytes in its shape"},
      {"[[1,2],[1,8],[7,4]]", "[[9,4]]            ", "expected two or more, found 1"},
      {"[[1,2],[1,8],[7,4]]", "[]                 ", "expected two or more, found 0"},
      {"[[1,2],[1,8],[7,4]]", "{}                 ", "an array"},
      {"[[1,2],[1,8],[7,4]]", "[[9e9,4],[1,2]]    ", "pairs"},
  };
  for (const auto& change : changes) {
    const std::string error = error_after(path, change.from, change.to);
    EXPECT_NE(error.find(change.expected), std::string::npos) << change.to << ": " << error;
  }
}

TEST(Checkpoint, BadScalesAndZerosAreRefused) {
  const test::TempDir dir;
  const std::string path = dir.file("tiny.crumb");
  const SourceModel model = tiny_model();
  const auto plans = test::mixed_plans(model.config);
  test::write_crumb(path, model, plans);
  const auto bytes = test::read_bytes(path);
  const Safetensors container = parse_safetensors(bytes, path);
  const auto error_with = [&](const std::string& suffix, uint8_t value) -> std::string {
    auto changed = bytes;
    for (const SafetensorsEntry& entry : container.tensors)
      if (entry.name.ends_with(suffix))
        changed[8 + container.header.size() + entry.begin + 1] = value;
    test::write_bytes(path, changed);
    try {
      Checkpoint::open(path);
    } catch (const FormatError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(error_with(".scales", 0x7c).find("NaN or infinity"), std::string::npos);
  EXPECT_NE(error_with(".zeros", 0xff).find("less than 2^"), std::string::npos);
  EXPECT_NE(error_with("model.norm.weight", 0), "absent");
  EXPECT_NE(error_with("tokenizer.types", 9).find("1..6"), std::string::npos);
  EXPECT_NE(error_with("tokenizer.offsets", 0x7f).find("tokenizer.offsets"), std::string::npos);
  EXPECT_NE(error_with("tokenizer.merges", 0x7f).find("token of merge"), std::string::npos);
}

TEST(CheckpointWriter, RefusesWrongOrderAndShapes) {
  const test::TempDir dir;
  const SourceModel model = tiny_model();
  const auto plans = test::mixed_plans(model.config);
  const CheckpointHeader header{model.config, model.vocab, "", {}, "", "{}"};
  CheckpointWriter writer(dir.file("x"), header, plans);
  EXPECT_THROW(writer.add("model.norm.weight", std::vector<float>(64)), std::logic_error);
  PackedData data = random_packed(plans[0], model.config.vocab, 64, 0);
  data.bits = data.bits == 4 ? 2 : 4;
  EXPECT_THROW(writer.add(plans[0].name, data), std::logic_error);
  data = random_packed(plans[0], model.config.vocab, 64, 0);
  data.scales[0] = 0x7e00;
  EXPECT_THROW(writer.add(plans[0].name, data), Error);
  EXPECT_THROW(writer.commit(), std::logic_error);
}

TEST(Checkpoint, StoredBytesAreTheFilesBytes) {
  const test::TempDir dir;
  const SourceModel model = tiny_model();
  const auto plans = test::banded_plans(model.config);
  test::write_crumb(dir.file("x"), model, plans);
  const auto bytes = test::read_bytes(dir.file("x"));
  int64_t expected = 0, found = 0;
  for (const MatrixPlan& plan : plans)
    for (const TensorInfo& info : tensor_table(model.config))
      if (info.name == plan.name) expected += stored_bytes(plan, info.shape[0], info.shape[1]);
  for (const SafetensorsEntry& entry : parse_safetensors(bytes, "x").tensors) {
    const bool small = entry.name.starts_with("tokenizer.") || entry.name.ends_with("norm.weight");
    if (!small) found += static_cast<int64_t>(entry.end - entry.begin);
    EXPECT_EQ(entry.end % 64, 0u) << entry.name;
  }
  EXPECT_EQ(found, expected);
}

// The size of SmolLM2 with INT2 layers and an INT4 head: opening must not read the codes.
TEST(Checkpoint, OpensARealSizeFast) {
  const test::TempDir dir;
  TinyOptions options;
  options.layers = 30;
  options.dim = 576;
  options.ffn = 1536;
  options.heads = 9;
  options.kv_heads = 3;
  options.head_dim = 64;
  options.vocab = 49152;
  const SourceModel model = tiny_model(options);
  std::vector<MatrixPlan> plans;
  for (const TensorInfo& info : tensor_table(model.config))
    if (may_be_quantized(info.role))
      plans.push_back({info.name, plans.empty() ? 4 : 2, 64, kernels::Grid::kSeq, {64, 7}, {}});
  const uint64_t size = test::write_crumb(dir.file("x"), model, plans);
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Checkpoint file = Checkpoint::open(dir.file("x"));
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  RecordProperty("open_ms", std::to_string(best));
  RecordProperty("bytes", std::to_string(size));
  // 15 ms on the reference machine; sanitizers and a busy machine get twenty times that.
  EXPECT_LT(best, 300);
}

}  // namespace
}  // namespace crumb::models
