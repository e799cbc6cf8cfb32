// A step over several sequences: bit for bit what each sequence alone gives.
#include "engine/batch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "models/errors.h"
#include "tests/engine/tiny.h"

namespace crumb {
namespace {

using kernels::Grid;
using test::Format;

constexpr Format kFloat{"f32", 32, 0};
constexpr Format kFormats[] = {
    kFloat,
    {"int4_g32", 4, 32},
    {"int2_row_rotated", 2, 0, Grid::kSeq, 32},
    {"bands_g32_asym", 3, 32, Grid::kAsym, 0, true},
};

std::vector<int32_t> ids_of(int64_t n, int32_t salt) {
  auto ids = test::some_ids(n, 300);
  for (auto& id : ids) id = 3 + (id + salt * 31) % 297;
  return ids;
}

// A text on its way through a batch, and what it gives alone.
struct Stream {
  std::vector<int32_t> ids;
  std::vector<float> want;  // [ids, V]
  std::unique_ptr<Sequence> sequence;
  std::vector<float> got;
};

std::vector<Stream> make_streams(const Engine& engine, const Batch& batch,
                                 const SessionOptions& options) {
  std::vector<Stream> streams;
  int32_t salt = 0;
  for (const int64_t length : {40, 9, 75, 23}) {
    Stream stream;
    stream.ids = ids_of(length, ++salt);
    stream.want = test::all_logits(engine, stream.ids, options);
    stream.sequence = batch.make_sequence();
    streams.push_back(std::move(stream));
  }
  return streams;
}

// Each step takes a few tokens of each stream (a count of 0 sits out), so that chunks run beside
// single rows in every mixture.
void run_to_end(Batch& batch, std::vector<Stream>& streams, int64_t V) {
  constexpr int64_t kCounts[] = {1, 7, 0, 1, 3, 16, 1, 0, 1, 1, 5};
  bool left = true;
  for (std::size_t turn = 0; left; ++turn) {
    std::vector<BatchPart> parts;
    std::vector<Stream*> owners;
    left = false;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      Stream& stream = streams[i];
      const int64_t at = stream.sequence->position();
      const int64_t rest = std::ssize(stream.ids) - at;
      left = left || rest > 0;
      const int64_t count = std::min(rest, kCounts[(turn + 4 * i) % std::size(kCounts)]);
      if (count == 0) continue;
      parts.push_back({stream.sequence.get(),
                       std::span(stream.ids)
                           .subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count)),
                       LogitsOf::kAll});
      owners.push_back(&stream);
    }
    if (parts.empty()) continue;
    batch.step(parts);
    int64_t row = 0;
    for (std::size_t p = 0; p < parts.size(); ++p)
      for (std::size_t t = 0; t < parts[p].ids.size(); ++t, ++row) {
        EXPECT_TRUE(batch.finite(row));
        const auto logits = batch.logits(row);
        ASSERT_EQ(std::ssize(logits), V);
        owners[p]->got.insert(owners[p]->got.end(), logits.begin(), logits.end());
        std::vector<float> blocks(static_cast<std::size_t>(logit_blocks(V)));
        find_block_max(logits, blocks.data());
        EXPECT_TRUE(std::ranges::equal(batch.block_max(row), blocks));
      }
  }
}

class BatchBits : public testing::TestWithParam<Format> {};

TEST_P(BatchBits, EachSequenceIsAsAlone) {
  for (const int threads : {1, 2, 3}) {
    LoadOptions load;
    load.threads = threads;
    const auto engine = test::tiny_engine(GetParam(), load);
    for (const auto kv : {kernels::KvType::kI8, kernels::KvType::kF32}) {
      SessionOptions session;
      session.kv = kv;
      BatchOptions options;
      options.kv = kv;
      Batch batch(engine, options);
      auto streams = make_streams(*engine, batch, session);
      run_to_end(batch, streams, engine->config().vocab);
      for (const Stream& stream : streams) {
        ASSERT_EQ(stream.got.size(), stream.want.size());
        EXPECT_EQ(
            std::memcmp(stream.got.data(), stream.want.data(), stream.want.size() * sizeof(float)),
            0)
            << threads << " threads, " << stream.ids.size() << " tokens";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, BatchBits, testing::ValuesIn(kFormats),
                         [](const auto& test_case) { return std::string(test_case.param.name); });

// Windows, norms of heads, a second RoPE table, and a context of several chunks of attention.
TEST(Batch, OtherBlocksAndLongContexts) {
  models::TinyOptions tiny;
  tiny.architecture = "gemma3";
  tiny.context = 1200;
  tiny.layers = 2;
  tiny.block.qk_norm = tiny.block.post_norms = true;
  tiny.block.window = 530;
  tiny.block.window_every = 2;
  tiny.block.rope_theta_local = 1000;
  LoadOptions load;
  load.threads = 2;
  const auto engine = test::tiny_engine(kFloat, load, tiny);
  const auto long_ids = ids_of(1100, 1), short_ids = ids_of(60, 2);
  const auto alone = [&](const std::vector<int32_t>& ids) {
    const auto session = engine->make_session();
    const auto logits = session->forward(ids);
    return std::vector<float>(logits.begin(), logits.end());
  };
  Batch batch(engine, {});
  const auto a = batch.make_sequence(), b = batch.make_sequence();
  for (std::size_t at = 0; at < long_ids.size(); at += 50) {
    std::vector<BatchPart> parts = {
        {a.get(), std::span(long_ids).subspan(at, 50), LogitsOf::kLast}};
    const auto position = static_cast<std::size_t>(b->position());
    if (position < short_ids.size())
      parts.push_back({b.get(), std::span(short_ids).subspan(position, 4), LogitsOf::kLast});
    batch.step(parts);
    if (b->position() == std::ssize(short_ids) && position < short_ids.size()) {
      const auto logits = batch.logits(1);
      EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()), alone(short_ids));
    }
  }
  const auto logits = batch.logits(0);
  EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()), alone(long_ids));
}

TEST(Batch, ACopiedPrefixIsAsRead) {
  const auto engine = test::tiny_engine({"int4", 4, 32});
  for (const auto kv : {kernels::KvType::kI8, kernels::KvType::kF16, kernels::KvType::kF32}) {
    BatchOptions options;
    options.kv = kv;
    Batch batch(engine, options);
    const auto ids = ids_of(50, 3);
    const auto from = batch.make_sequence(), to = batch.make_sequence();
    const BatchPart read{from.get(), ids, LogitsOf::kLast};
    batch.step({&read, 1});
    const std::vector<float> want(batch.logits(0).begin(), batch.logits(0).end());
    const auto other = ids_of(64, 4);  // what `to` held before
    const BatchPart before{to.get(), other, LogitsOf::kNone};
    batch.step({&before, 1});
    for (const int64_t n : {33, 1, 48, 16}) {
      to->copy_prefix(*from, n);
      EXPECT_EQ(to->position(), n);
      const BatchPart rest{to.get(), std::span(ids).subspan(static_cast<std::size_t>(n)),
                           LogitsOf::kLast};
      batch.step({&rest, 1});
      EXPECT_EQ(std::vector<float>(batch.logits(0).begin(), batch.logits(0).end()), want) << n;
    }
    to->copy_prefix(*from, 1000);
    EXPECT_EQ(to->position(), 50) << "no more than there is";
  }
}

TEST(Batch, ARefusedStepReadsNothing) {
  BatchOptions options;
  options.context = 16;
  options.max_rows = 20;
  Batch batch(test::tiny_engine(kFloat), options);
  const auto a = batch.make_sequence(), b = batch.make_sequence();
  const auto ids = ids_of(17, 1);
  const auto refused = [&](std::vector<BatchPart> parts, ExitCode code) {
    try {
      batch.step(parts);
      ADD_FAILURE() << "not refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
    }
    EXPECT_EQ(a->position(), 0);
    EXPECT_EQ(b->position(), 0);
  };
  const auto some = [&](std::size_t n) { return std::span(ids).first(n); };
  refused({{a.get(), some(3)}, {b.get(), some(17)}}, ExitCode::kMemory);
  refused({{a.get(), some(10)}, {b.get(), some(11)}}, ExitCode::kInternal);
  refused({{a.get(), some(3)}, {b.get(), {}}}, ExitCode::kInternal);
  refused({}, ExitCode::kInternal);
  const int32_t bad = 300;
  refused({{a.get(), some(3)}, {b.get(), {&bad, 1}}}, ExitCode::kBadFile);
  EXPECT_THROW(Batch(test::tiny_engine(kFloat), {.context = 100000}), Error);
  EXPECT_THROW(Batch(test::tiny_engine(kFloat), {.max_rows = 0}), Error);
}

// A token whose embedding is NaN spoils its own sequence and no other.
TEST(Batch, ARowThatIsNotFiniteIsTheOnlyOne) {
  models::TinyOptions tiny;
  tiny.tied_head = false;
  auto source = models::tiny_model(tiny);
  source.read = [read = source.read, dim = tiny.dim](std::string_view name, std::span<float> out) {
    read(name, out);
    if (name != "model.embed_tokens") return;
    for (float& x : out.subspan(static_cast<std::size_t>(5 * dim), static_cast<std::size_t>(dim)))
      x = std::numeric_limits<float>::quiet_NaN();
  };
  LoadOptions load;
  load.threads = 2;
  load.pin = false;
  const auto engine = Engine::from_source(source, load);
  const std::vector<int32_t> good = {7, 8, 9}, bad = {7, 5};
  const auto session = engine->make_session();
  const auto alone = session->forward(good);
  const std::vector<float> want(alone.begin(), alone.end());
  Batch batch(engine, {.kv = kernels::KvType::kI8});
  const auto a = batch.make_sequence(), b = batch.make_sequence();
  const BatchPart parts[] = {{a.get(), bad, LogitsOf::kAll}, {b.get(), good, LogitsOf::kLast}};
  batch.step(parts);
  EXPECT_TRUE(batch.finite(0));
  EXPECT_FALSE(batch.finite(1));
  EXPECT_TRUE(batch.finite(2));
  EXPECT_EQ(std::vector<float>(batch.logits(2).begin(), batch.logits(2).end()), want);
}

TEST(Batch, HiddenIsWhatTheHeadReads) {
  const auto source = models::tiny_model();
  LoadOptions load;
  load.threads = 2;
  load.pin = false;
  const auto engine = Engine::from_source(source, load);
  Batch batch(engine, {});
  const auto a = batch.make_sequence(), b = batch.make_sequence();
  const auto ids = ids_of(5, 1);
  const BatchPart parts[] = {{a.get(), ids, LogitsOf::kNone}, {b.get(), ids, LogitsOf::kLast}};
  batch.step(parts);
  const auto& c = engine->config();
  std::vector<float> head(static_cast<std::size_t>(c.vocab * c.dim)),
      state(static_cast<std::size_t>(c.dim));
  source.read("model.embed_tokens", head);
  for (const int64_t index : {4, 9}) {  // the last token of either
    batch.hidden(index, state);
    for (int64_t n = 0; n < c.vocab; ++n) {
      double dot = 0;
      for (int64_t k = 0; k < c.dim; ++k)
        dot += static_cast<double>(head[static_cast<std::size_t>(n * c.dim + k)]) *
               static_cast<double>(state[static_cast<std::size_t>(k)]);
      ASSERT_NEAR(batch.logits(0)[static_cast<std::size_t>(n)], dot, 1e-4);
    }
  }
}

}  // namespace
}  // namespace crumb
