// Images through tower and projector: against the slow twin, bit-equal over threads and instruction
// sets, and as tokens of a prompt.
#include <gtest/gtest.h>

#include <cstring>

#include "engine/batch.h"
#include "engine/chat.h"
#include "engine/vision/encoder.h"
#include "engine/vision/preprocess.h"
#include "engine/vision/prompt.h"
#include "models/errors.h"
#include "models/vision_towers.h"
#include "tests/engine/picture_files.h"
#include "tests/engine/tiny.h"
#include "tests/engine/vision_twin.h"

namespace crumb {
namespace {

models::TinyOptions seeing(const std::string& tower) {
  models::TinyOptions options;
  options.vision = models::tiny_vision(tower);
  return options;
}

std::vector<float> some_values(std::size_t n) {
  std::vector<float> out(n);
  uint32_t x = 1;
  for (float& value : out) {
    x = x * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(x)) * 0x1p-30f;
  }
  return out;
}

std::vector<float> pixels_of(const models::ModelConfig& config) {
  return some_values(static_cast<std::size_t>(3 * config.vision->image * config.vision->image));
}

// |a - b| / |b|.
double distance(const std::vector<float>& a, const test::Rows& b) {
  double difference = 0, norm = 0;
  std::size_t i = 0;
  for (const auto& row : b)
    for (const double value : row) {
      difference += (static_cast<double>(a[i]) - value) * (static_cast<double>(a[i]) - value);
      norm += value * value;
      ++i;
    }
  EXPECT_EQ(i, a.size());
  return std::sqrt(difference / norm);
}

std::shared_ptr<const Engine> packed_engine(const models::SourceModel& source, int bits,
                                            const LoadOptions& load = {}) {
  const test::TempDir dir;
  quant::QuantizeOptions options;
  options.linear.bits = options.embedding.bits = options.head.bits = 32;
  options.vision = quant::vision_method(bits);
  quant::quantize(source, options, dir.file("seeing.crumb"), {});
  return Engine::load(dir.file("seeing.crumb"), load);
}

class Towers : public testing::TestWithParam<const char*> {};

TEST_P(Towers, FloatsAreTheTwins) {
  const auto source = models::tiny_model(seeing(GetParam()));
  const test::VisionTwin twin(source);
  const auto pixels = pixels_of(source.config);
  const auto found = vision::encode(*Engine::from_source(source), pixels);
  const test::Rows features = twin.features(pixels);
  EXPECT_LT(distance(found.features, features), 3e-6);
  EXPECT_LT(distance(found.rows, twin.rows(features)), 3e-6);
}

TEST_P(Towers, FewBitsAreCloseToTheTwinOfTheirWeights) {
  const auto source = models::tiny_model(seeing(GetParam()));
  const auto pixels = pixels_of(source.config);
  const test::VisionTwin exact(source);
  const test::Rows features = exact.features(pixels);
  for (const auto& [bits, most] : {std::pair(8, 0.02), std::pair(4, 0.25)}) {
    const auto found = vision::encode(*packed_engine(source, bits), pixels);
    const double error = distance(found.features, features);
    EXPECT_LT(error, most) << bits << " bits";
    EXPECT_GT(error, 1e-5) << "nothing was rounded";
    EXPECT_LT(distance(found.rows, exact.rows(features)), most) << bits << " bits";
  }
}

TEST_P(Towers, BitsDoNotDependOnThreadsOrInstructions) {
  const auto source = models::tiny_model(seeing(GetParam()));
  const auto pixels = pixels_of(source.config);
  for (const int bits : {32, 8, 4}) {
    std::vector<float> want;
    for (const auto* backend : kernels::backends())
      for (const int threads : {1, 2, 3}) {
        LoadOptions load;
        load.threads = threads;
        load.pin = false;
        load.isa = backend->name;
        const auto rows = vision::encode(*packed_engine(source, bits, load), pixels).rows;
        if (want.empty()) want = rows;
        EXPECT_EQ(std::memcmp(rows.data(), want.data(), want.size() * sizeof(float)), 0)
            << bits << " bits, " << backend->name << ", " << threads << " threads";
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, Towers,
                         testing::Values("dinov2", "clip_vision_model", "siglip_vision_model"),
                         [](const auto& row) { return std::string(row.param); });

// More tokens than a chunk of attention, one projector matrix without bias, no unshuffling.
TEST(Vision, ManyPatchesAndASingleMatrix) {
  auto options = seeing("siglip_vision_model");
  options.vision->image = options.vision->resize = 98;  // two pixels more than whole patches
  options.vision->layers = 1;
  options.vision->hidden = 0;
  options.vision->unshuffle = 1;
  options.vision->projector_bias = false;
  const auto source = models::tiny_model(options);
  ASSERT_GT(models::vision_tokens(*source.config.vision), kernels::kAttendChunk);
  const auto pixels = pixels_of(source.config);
  const test::VisionTwin twin(source);
  const auto found = vision::encode(*Engine::from_source(source), pixels);
  const test::Rows features = twin.features(pixels);
  EXPECT_LT(distance(found.features, features), 3e-6);
  EXPECT_LT(distance(found.rows, twin.rows(features)), 3e-6);
}

TEST(Vision, AModelWithoutATowerSaysSo) {
  try {
    vision::look(*test::tiny_engine({"f32", 32, 0}), {1, 1, {1, 2, 3}});
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("cannot see"), std::string::npos);
  }
}

// Rows that are the tokens' own embeddings give the tokens' logits, wherever they are cut.
TEST(Rows, OfTheEmbeddingAreAsIds) {
  const auto source = models::tiny_model();
  const auto engine = Engine::from_source(source);
  const int64_t D = source.config.dim, V = source.config.vocab;
  std::vector<float> table(static_cast<std::size_t>(V * D));
  source.read("model.embed_tokens", table);
  const auto ids = test::some_ids(40, V);
  std::vector<int32_t> mixed = ids;
  std::vector<float> rows;
  for (std::size_t i = 5; i < 30; i += (i % 3) + 1) {
    const auto* row = table.data() + ids[i] * D;
    mixed[i] = ~static_cast<int32_t>(std::ssize(rows) / D);
    rows.insert(rows.end(), row, row + D);
  }
  for (const int64_t chunk : {1, 7, 64}) {
    SessionOptions options;
    options.chunk = chunk;
    const auto a = engine->make_session(options), b = engine->make_session(options);
    const auto want = a->forward(ids), found = b->forward(mixed, rows);
    EXPECT_EQ(std::vector<float>(want.begin(), want.end()),
              std::vector<float>(found.begin(), found.end()))
        << chunk;
  }
}

// Two sequences with rows of their own in one step.
TEST(Rows, OfEachPartAreItsOwn) {
  const auto engine = test::tiny_engine({"int4", 4, 32});
  const int64_t D = engine->config().dim;
  const auto first = some_values(static_cast<std::size_t>(3 * D));
  auto second = first;
  for (float& value : second) value = -value;
  const std::vector<int32_t> a = {5, ~0, ~1, ~2, 9}, b = {~2, 7, ~0};
  const auto alone = [&](const std::vector<int32_t>& ids, const std::vector<float>& rows) {
    const auto session = engine->make_session();
    const auto logits = session->forward(ids, rows);
    return std::vector<float>(logits.begin(), logits.end());
  };
  Batch batch(engine, {});
  const auto x = batch.make_sequence(), y = batch.make_sequence();
  const BatchPart parts[] = {{x.get(), a, LogitsOf::kLast, first},
                             {y.get(), b, LogitsOf::kLast, second}};
  batch.step(parts);
  EXPECT_EQ(std::vector<float>(batch.logits(0).begin(), batch.logits(0).end()), alone(a, first));
  EXPECT_EQ(std::vector<float>(batch.logits(1).begin(), batch.logits(1).end()), alone(b, second));
}

TEST(Rows, ThatAreNotThereAreRefused) {
  const auto engine = test::tiny_engine({"f32", 32, 0});
  const auto rows = some_values(static_cast<std::size_t>(2 * engine->config().dim));
  const auto session = engine->make_session();
  const auto refused = [&](std::vector<int32_t> ids, std::span<const float> given) {
    try {
      session->forward(ids, given);
      return ExitCode::kOk;
    } catch (const Error& error) {
      return error.code();
    }
  };
  EXPECT_EQ(refused({~2}, rows), ExitCode::kInternal);
  EXPECT_EQ(refused({INT32_MIN}, rows), ExitCode::kInternal);
  EXPECT_EQ(refused({-1}, {}), ExitCode::kBadFile);
  EXPECT_EQ(session->position(), 0);
  EXPECT_EQ(refused({~1, ~0}, rows), ExitCode::kOk);
}

vision::Image picture(uint8_t shade) { return {6, 4, std::vector<uint8_t>(6 * 4 * 3, shade)}; }

GenerateOptions greedy(int64_t tokens) {
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = tokens;
  return options;
}

// The rows stand between what is before and after an image, in front of the message's text.
TEST(SeeingChat, ImagesStandBeforeTheText) {
  auto options = seeing("dinov2");
  options.vision->before = "<|im_start|>";
  const auto engine = Engine::from_source(models::tiny_model(options));
  Chat chat(engine, {});
  const auto rows = vision::look(*engine, picture(10));
  chat.messages().push_back({"user", "What?", {rows, rows}});
  const auto ids = chat.render(false);
  const int64_t n = models::image_tokens(*engine->config().vision);
  std::vector<int32_t> want;
  const auto text = [&](const char* piece) {
    const auto own = engine->tokenizer().encode(piece, true);
    want.insert(want.end(), own.begin(), own.end());
  };
  text("<|im_start|>user\n<|im_start|>");
  for (int32_t i = 0; i < n; ++i) want.push_back(~i);
  text("\n<|im_start|>");
  for (int64_t i = n; i < 2 * n; ++i) want.push_back(~static_cast<int32_t>(i));
  text("\nWhat?<|im_end|>\n");
  EXPECT_EQ(ids, want);
}

// A template that lists parts writes the image's text itself; only what it writes counts.
TEST(SeeingChat, TemplatesMayWriteTheImage) {
  auto options = seeing("siglip_vision_model");
  options.vision->image_text = "<image>";
  auto source = models::tiny_model(options);
  source.chat_template =
      "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
      "{% for part in m['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}"
      "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}";
  const auto engine = Engine::from_source(source);
  Chat chat(engine, {});
  chat.messages().push_back({"user", "<image>", {vision::look(*engine, picture(1))}});
  const auto ids = chat.render(false);
  EXPECT_EQ(std::count_if(ids.begin(), ids.end(), [](int32_t id) { return id < 0; }),
            models::image_tokens(*options.vision));
  chat.messages().push_back({"user", "<image>", {}});
  EXPECT_NO_THROW(chat.render(false)) << "a user's text is no image";
}

TEST(SeeingChat, ALostImageIsAnError) {
  auto source = models::tiny_model(seeing("dinov2"));
  source.chat_template = "{{ 'nothing of it' }}";
  const auto engine = Engine::from_source(source);
  Chat chat(engine, {});
  chat.messages().push_back({"user", "x", {vision::look(*engine, picture(1))}});
  EXPECT_THROW(chat.render(true), FormatError);
  Chat blind(test::tiny_engine({"f32", 32, 0}), {});
  blind.messages().push_back({"user", "x", {std::make_shared<const std::vector<float>>()}});
  EXPECT_THROW(blind.render(true), Error);
}

TEST(SeeingChat, PrefixesAreAlikeInIdsAndRows) {
  const std::vector<int32_t> ids = {4, ~0, ~1, 5, 6}, other = {4, ~0, ~1, 5, 7, 8};
  const std::vector<float> rows = {1, 2, 3, 4}, close = {1, 2, 3, 5};
  EXPECT_EQ(vision::common_prefix({ids, rows}, {other, rows}, 2), 4u);
  EXPECT_EQ(vision::common_prefix({ids, rows}, {other, close}, 2), 2u);
  EXPECT_EQ(vision::common_prefix({ids, rows}, {ids, rows}, 2), 5u);
  EXPECT_EQ(vision::common_prefix({ids, rows}, {{}, rows}, 2), 0u);
}

// The cache keeps what is common, images too, and never another image's.
TEST(SeeingChat, TheCacheKnowsImagesApart) {
  const auto engine = Engine::from_source(models::tiny_model(seeing("dinov2")));
  const auto dark = vision::look(*engine, picture(3)), light = vision::look(*engine, picture(250));
  const auto answer = [&](Chat& chat, const ImageRows& image) {
    return chat.say("Hi", greedy(4), {}, {image});
  };
  Chat fresh(engine, {}), used(engine, {});
  const auto want = answer(fresh, light);
  answer(used, dark);
  used.messages().clear();
  const auto found = answer(used, light);
  EXPECT_EQ(found.ids, want.ids);
  EXPECT_LT(found.cached_tokens, models::image_tokens(*engine->config().vision));
  used.messages().clear();
  const auto again = answer(used, light);
  EXPECT_EQ(again.ids, want.ids);
  EXPECT_GT(again.cached_tokens, models::image_tokens(*engine->config().vision));
}

// Penalties count tokens; an image has none.
TEST(SeeingChat, PenaltiesPassOverImages) {
  const auto engine = Engine::from_source(models::tiny_model(seeing("dinov2")));
  Chat chat(engine, {});
  GenerateOptions options = greedy(6);
  options.sampling.repeat_penalty = 1.3f;
  EXPECT_EQ(chat.say("Hi", options, {}, {vision::look(*engine, picture(3))}).ids.size(), 6u);
}

}  // namespace
}  // namespace crumb
