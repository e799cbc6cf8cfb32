#include "models/gguf.h"
#include "models/export.h"

#include <gtest/gtest.h>

#include <cmath>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "models/byte_reader.h"
#include "tests/models/support.h"

namespace crumb::models {
namespace {

using test::read_tensor;

// The message of the FormatError that `action` throws, empty if none.
template <class Action>
std::string format_error(const Action& action) {
  try {
    action();
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

// Decodings by the `gguf` package, tests/golden/make_gguf_blocks.py; equal to the last bit.
TEST(GgufBlocks, EqualTheReferenceDecodingOfEveryType) {
  const auto bytes = test::read_bytes(test::golden("gguf_blocks.bin"));
  ByteReader in(bytes, "gguf_blocks.bin");
  std::size_t types = 0;
  for (; in.remaining() > 0; ++types) {
    const auto id = in.read<uint32_t>("type");
    const auto size = in.read<uint32_t>("size"), count = in.read<uint32_t>("count");
    const BlockType* type = find_block_type(id);
    ASSERT_NE(type, nullptr) << id;
    ASSERT_EQ(size / type->bytes * type->values, count) << type->name;
    const auto blocks = in.take(size, "blocks");
    std::vector<float> expected(count), found(count);
    std::memcpy(expected.data(), in.take(count * sizeof(float), "values").data(),
                count * sizeof(float));
    type->dequantize(blocks.data(), size / type->bytes, found.data());
    for (uint32_t i = 0; i < count; ++i)
      ASSERT_EQ(found[i], expected[i]) << type->name << " value " << i;
  }
  EXPECT_EQ(types, block_types().size() - 1);  // the package does not decode Q8_K
}

TEST(GgufBlocks, Q8KIsASingleScaleTimesBytes) {
  const BlockType* type = find_block_type(15);
  ASSERT_NE(type, nullptr);
  std::vector<uint8_t> block(static_cast<std::size_t>(type->bytes), 0xee);  // the sums are not read
  const float d = -0.3f;
  std::memcpy(block.data(), &d, sizeof d);
  for (std::size_t i = 0; i < 256; ++i) block[4 + i] = static_cast<uint8_t>(i);
  std::vector<float> values(256);
  type->dequantize(block.data(), 1, values.data());
  for (int i = 0; i < 256; ++i)
    EXPECT_EQ(values[static_cast<std::size_t>(i)], d * static_cast<float>(i < 128 ? i : i - 256));
}

void expect_same_model(const SourceModel& a, const SourceModel& b) {
  EXPECT_EQ(to_json(a.config), to_json(b.config));
  EXPECT_EQ(a.vocab.tokens, b.vocab.tokens);
  EXPECT_EQ(a.vocab.types, b.vocab.types);
  EXPECT_EQ(a.vocab.merges, b.vocab.merges);
  EXPECT_EQ(a.vocab.stop, b.vocab.stop);
  EXPECT_EQ(a.vocab.eos, b.vocab.eos);
  EXPECT_EQ(a.chat_template, b.chat_template);
  EXPECT_EQ(a.license, b.license);
  for (const TensorInfo& info : tensor_table(a.config))
    EXPECT_EQ(read_tensor(a, info), read_tensor(b, info)) << info.name;
}

class TinyGguf : public testing::TestWithParam<TinyOptions> {};

TEST_P(TinyGguf, ComesBackAsWritten) {
  const test::TempDir dir;
  const SourceModel model = tiny_model(GetParam());
  write_gguf(model, dir.file("tiny.gguf"));
  const SourceModel back = open_source(dir.file("tiny.gguf"));
  expect_same_model(model, back);
  EXPECT_EQ(back.description, "F32");
  EXPECT_EQ(back.hash.size(), 32u);
}

TinyOptions options_of(const char* architecture, int64_t dim, int64_t head_dim, int64_t vocab,
                       bool tied) {
  TinyOptions options;
  options.architecture = architecture;
  options.dim = dim;
  options.head_dim = head_dim;
  options.vocab = vocab;
  options.tied_head = tied;
  options.qkv_bias = options.architecture == "qwen2";
  options.block.qk_norm = options.architecture == "qwen3" || options.architecture == "gemma3";
  if (options.architecture == "gemma3") {
    options.block.post_norms = true;
    options.block.activation = Activation::kGeluTanh;
    options.block.embedding_scale = std::sqrt(static_cast<float>(dim));
    options.block.window = 32;
    options.block.window_every = 6;
    options.block.rope_theta_local = 10000;
  }
  return options;
}

INSTANTIATE_TEST_SUITE_P(Options, TinyGguf,
                         testing::Values(options_of("llama", 64, 16, 300, true),
                                         options_of("llama", 48, 12, 259, false),
                                         options_of("qwen2", 64, 16, 1400, true),
                                         options_of("qwen2", 36, 10, 301, false),
                                         options_of("qwen3", 64, 16, 302, true),
                                         options_of("gemma3", 64, 16, 303, true)),
                         [](const auto& param) {
                           return param.param.architecture + std::to_string(param.param.dim) + "V" +
                                  std::to_string(param.param.vocab);
                         });

TEST(Gguf, HalfSplitRowsAreInterleaved) {
  const test::TempDir dir;
  const SourceModel model = tiny_model(options_of("qwen2", 64, 16, 300, true));
  write_gguf(model, dir.file("tiny.gguf"));
  const auto bytes = test::read_bytes(dir.file("tiny.gguf"));
  const GgufFile gguf(bytes, "tiny.gguf");
  const TensorInfo info{"model.layers.1.self_attn.q_proj", {64, 64}, TensorRole::kLinear, 1};
  const auto ours = read_tensor(model, info);
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (tensor.name != "blk.1.attn_q.weight") continue;
    const auto* file = reinterpret_cast<const float*>(tensor.data.data());
    // Head 2, pair 3: rows 3 and 3 + 8 of the file are rows 6 and 7 of ours.
    EXPECT_EQ(file[(32 + 3) * 64 + 5], ours[(32 + 6) * 64 + 5]);
    EXPECT_EQ(file[(32 + 3 + 8) * 64 + 5], ours[(32 + 7) * 64 + 5]);
    return;
  }
  FAIL() << "no blk.1.attn_q.weight";
}

// A small GGUF file made by hand, one defect at a time.
class Builder {
 public:
  template <class T>
  Builder& put(T value) {
    bytes_.insert(bytes_.end(), reinterpret_cast<const uint8_t*>(&value),
                  reinterpret_cast<const uint8_t*>(&value) + sizeof(T));
    return *this;
  }
  Builder& text(std::string_view value) {
    put<uint64_t>(value.size());
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    return *this;
  }
  Builder& start(uint64_t tensors, uint64_t values, uint32_t version = 3) {
    return put<uint32_t>(0x46554747).put(version).put(tensors).put(values);
  }
  Builder& tensor(std::string_view name, uint64_t dim, uint32_t type, uint64_t offset) {
    return text(name).put<uint32_t>(1).put(dim).put(type).put(offset);
  }
  Builder& pad(std::size_t unit) {
    while (bytes_.size() % unit != 0) bytes_.push_back(0);
    return *this;
  }
  Builder& zeros(std::size_t n) {
    bytes_.resize(bytes_.size() + n);
    return *this;
  }
  std::string error() const {
    return format_error([this] { GgufFile(bytes_, "x.gguf"); });
  }

 private:
  std::vector<uint8_t> bytes_;
};

constexpr uint32_t kU32 = 4, kF32 = 6, kString = 8, kArray = 9;

struct Defect {
  const char* name;
  Builder file;
  const char* expected;  // part of the message; empty: lawful
};

void PrintTo(const Defect& defect, std::ostream* out) { *out << defect.name; }

class GgufDefect : public testing::TestWithParam<Defect> {};

TEST_P(GgufDefect, IsNamed) {
  const std::string error = GetParam().file.error();
  if (*GetParam().expected == '\0') {
    EXPECT_EQ(error, "");
  } else {
    EXPECT_NE(error.find(GetParam().expected), std::string::npos) << "message: " << error;
    EXPECT_NE(error.find("x.gguf"), std::string::npos) << error;
  }
}

const Defect kDefects[] = {
    {"LawfulV3", Builder().start(1, 0).tensor("a", 8, 0, 0).pad(32).zeros(32), ""},
    {"LawfulV2", Builder().start(1, 0, 2).tensor("a", 8, 0, 0).pad(32).zeros(32), ""},
    {"Version1", Builder().start(0, 0, 1), "expected 2 or 3, found 1"},
    {"BigEndian", Builder().start(0, 0, 0x03000000), "byte order"},
    {"HugeTensorCount", Builder().start(uint64_t{1} << 60, 0), "number of tensors"},
    {"HugeValueCount", Builder().start(0, ~uint64_t{0}), "number of metadata values"},
    {"HugeKey", Builder().start(0, 1).put(~uint64_t{0}).zeros(64), "metadata key"},
    {"EmptyKey", Builder().start(0, 1).text("").put(kU32).put<uint32_t>(1), "metadata key"},
    {"DuplicateKey",
     Builder().start(0, 2).text("k").put(kU32).put<uint32_t>(1).text("k").put(kU32).put<uint32_t>(
         1),
     "twice"},
    {"UnknownType", Builder().start(0, 1).text("k").put<uint32_t>(13).zeros(8), "0..12"},
    {"HugeString", Builder().start(0, 1).text("k").put(kString).put(uint64_t{1} << 40).zeros(64),
     "16777216"},
    {"NestedArray", Builder().start(0, 1).text("k").put(kArray).put(kArray).zeros(64), "nested"},
    {"HugeArray", Builder().start(0, 1).text("k").put(kArray).put(kF32).put(~uint64_t{0}).zeros(64),
     "67108864"},
    {"LongArray",
     Builder().start(0, 1).text("k").put(kArray).put(kF32).put<uint64_t>(1000).zeros(64),
     "4000 bytes"},
    {"LongStrings",
     Builder().start(0, 1).text("k").put(kArray).put(kString).put<uint64_t>(1000).zeros(64),
     "at most 8"},
    {"AlignmentZero", Builder().start(0, 1).text("general.alignment").put(kU32).put<uint32_t>(0),
     "power of two"},
    {"AlignmentOdd", Builder().start(0, 1).text("general.alignment").put(kU32).put<uint32_t>(24),
     "power of two"},
    {"AlignmentHuge",
     Builder().start(0, 1).text("general.alignment").put(kU32).put<uint32_t>(1u << 31),
     "power of two"},
    {"AlignmentType", Builder().start(0, 1).text("general.alignment").put(kF32).put(32.0f),
     "expected u32"},
    {"TensorType", Builder().start(1, 0).tensor("a", 32, 9, 0).pad(32).zeros(64), "type number 9"},
    {"TensorRow", Builder().start(1, 0).tensor("a", 40, 3, 0).pad(32).zeros(64),
     "multiple of 32 (Q4_1)"},
    {"TensorDimZero", Builder().start(1, 0).tensor("a", 0, 0, 0).pad(32).zeros(64), "dimension"},
    {"TensorDimNegative", Builder().start(1, 0).tensor("a", ~uint64_t{0}, 0, 0).pad(32).zeros(64),
     "dimension"},
    {"TensorDimWraps",
     Builder().start(1, 0).tensor("a", (uint64_t{1} << 62) + 8, 0, 0).pad(32).zeros(64),
     "below 2^64"},
    {"TensorNoDims", Builder().start(1, 0).text("a").put<uint32_t>(0).zeros(64), "1..4"},
    {"TensorManyDims", Builder().start(1, 0).text("a").put<uint32_t>(5).zeros(64), "1..4"},
    {"TensorNoName", Builder().start(1, 0).tensor("", 8, 0, 0).pad(32).zeros(32), "tensor name"},
    {"TensorTwice",
     Builder().start(2, 0).tensor("a", 8, 0, 0).tensor("a", 8, 0, 32).pad(32).zeros(64), "twice"},
    {"TensorUnaligned", Builder().start(1, 0).tensor("a", 8, 0, 8).pad(32).zeros(64),
     "multiple of 32"},
    {"TensorOutside", Builder().start(1, 0).tensor("a", 8, 0, 0).pad(32).zeros(31),
     "32 bytes of tensor data"},
    {"TensorFarOutside", Builder().start(1, 0).tensor("a", 8, 0, ~uint64_t{31}).pad(32).zeros(32),
     "no hole"},
    {"TensorOverlap",
     Builder().start(2, 0).tensor("a", 16, 0, 0).tensor("b", 8, 0, 32).pad(32).zeros(64),
     "overlap"},
    {"TensorHole",
     Builder().start(2, 0).tensor("a", 8, 0, 0).tensor("b", 8, 0, 96).pad(32).zeros(128),
     "unused bytes"},
    {"Trailing", Builder().start(1, 0).tensor("a", 8, 0, 0).pad(32).zeros(32 + 64), "end of file"},
};

INSTANTIATE_TEST_SUITE_P(All, GgufDefect, testing::ValuesIn(kDefects),
                         [](const auto& param) { return param.param.name; });

TEST(Gguf, TruncationHintsAtTheDownload) {
  const test::TempDir dir;
  write_gguf(tiny_model(), dir.file("tiny.gguf"));
  auto bytes = test::read_bytes(dir.file("tiny.gguf"));
  bytes.resize(bytes.size() / 2);
  test::write_bytes(dir.file("half.gguf"), bytes);
  try {
    open_source(dir.file("half.gguf"));
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_NE(error.hint().find("download incomplete?"), std::string::npos) << error.what();
  }
}

// Replaces the only occurrence of `from` by `to` of the same length.
std::vector<uint8_t> replaced(std::vector<uint8_t> bytes, std::string_view from,
                              std::string_view to) {
  const auto at = std::search(bytes.begin(), bytes.end(), from.begin(), from.end());
  EXPECT_NE(at, bytes.end()) << from;
  std::copy(to.begin(), to.end(), at);
  return bytes;
}

TEST(Gguf, MeaningIsCheckedAndNamed) {
  const test::TempDir dir;
  write_gguf(tiny_model(), dir.file("tiny.gguf"));
  const auto bytes = test::read_bytes(dir.file("tiny.gguf"));
  const struct {
    std::string_view from, to, expected;
  } changes[] = {
      {"blk.1.ffn_up.weight", "blk.2.ffn_up.weight", "expected 'blk.1.ffn_up.weight'"},
      {"llama.block_count", "llama.block_counx", "llama.block_count"},
      {"general.architecture\x08\x00\x00\x00\x05", "general.architecture\x09\x00\x00\x00\x05",
       "invalid"},
      {"gpt2", "gptX", "tokenizer model"},
      {"<|im_end|>", "<|im_enX|>", ""},
  };
  for (const auto& change : changes) {
    test::write_bytes(dir.file("bad.gguf"), replaced(bytes, change.from, change.to));
    const std::string error = format_error([&] { open_source(dir.file("bad.gguf")); });
    EXPECT_NE(error.find(change.expected), std::string::npos) << change.from << ": " << error;
    EXPECT_EQ(error.empty(), change.expected.empty()) << change.from;
  }
}

TEST(Gguf, NanIsNamedByTensorAndRow) {
  const test::TempDir dir;
  write_gguf(tiny_model(), dir.file("tiny.gguf"));
  auto bytes = test::read_bytes(dir.file("tiny.gguf"));
  // The last tensor is the final norm [64]: 256 bytes at the end of the file.
  const float nan = std::nanf("");
  std::memcpy(&bytes[bytes.size() - 4], &nan, 4);
  test::write_bytes(dir.file("nan.gguf"), bytes);
  const SourceModel model = open_source(dir.file("nan.gguf"));
  std::vector<float> values(64);
  try {
    model.read("model.norm.weight", values);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNumeric);
    EXPECT_NE(std::string(error.what()).find("model.norm.weight"), std::string::npos)
        << error.what();
  }
}

TEST(Source, RefusesWhatIsNoModel) {
  const test::TempDir dir;
  EXPECT_THROW(open_source(dir.file("absent.gguf")), IoError);
  EXPECT_THROW(open_source(dir.dir().string()), FormatError);
  test::write_bytes(dir.file("empty"), {});
  EXPECT_THROW(open_source(dir.file("empty")), FormatError);
}

TEST(SmolLm2, OpensAndReadsEveryTensor) {
  const char* given = std::getenv("CRUMB_MODEL");
  const std::string path =
      given != nullptr ? given
                       : test::golden("../../models/checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!std::filesystem::exists(path))
    GTEST_SKIP() << "no " << path << "; models/fetch.sh brings it";
  const auto start = std::chrono::steady_clock::now();
  const SourceModel model = open_source(path);
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  RecordProperty("open_ms", std::to_string(elapsed.count()));
  EXPECT_EQ(model.config.layers, 30);
  EXPECT_EQ(model.config.head_dim, 64);
  EXPECT_EQ(model.config.rope_theta, 100000.0f);
  EXPECT_TRUE(model.config.tied_head);
  EXPECT_EQ(model.description, "dequantized Q4_1");
  EXPECT_EQ(model.license, "apache-2.0");
  EXPECT_EQ(model.vocab.tokens.size(), 49152u);
  EXPECT_EQ(model.vocab.merges.size(), 48900u);
  EXPECT_EQ(model.vocab.eos, 2);
  EXPECT_EQ(model.vocab.stop, std::vector<int32_t>{0});
  for (const TensorInfo& info : tensor_table(model.config)) {
    const auto values = read_tensor(model, info);
    // First values of a row, as the `gguf` package decodes them.
    if (info.name == "model.layers.0.self_attn.k_proj") {
      EXPECT_EQ(values[576 + 3], 0.1484375f);
    }
    EXPECT_GT(std::count_if(values.begin(), values.end(), [](float v) { return v != 0; }), 0)
        << info.name;
  }
}

}  // namespace
}  // namespace crumb::models
