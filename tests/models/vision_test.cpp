// Models that see: their configs, their checkpoints, and the folders they come from.
#include "models/vision.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "models/errors.h"
#include "models/export.h"
#include "models/json.h"
#include "models/vision_source.h"
#include "tests/models/support.h"

namespace crumb::models {
namespace {

using nlohmann::json;

constexpr const char* kTowers[] = {"dinov2", "clip_vision_model", "idefics3_vision",
                                   "siglip_vision_model"};

TinyOptions seeing(const std::string& tower) {
  TinyOptions options;
  options.layers = 1;
  options.vision = tiny_vision(tower);
  return options;
}

void expect_same_tensors(const SourceModel& a, const SourceModel& b, const ModelConfig& config) {
  for (const TensorInfo& info : whole_table(config))
    EXPECT_EQ(test::read_tensor(a, info), test::read_tensor(b, info)) << info.name;
}

TEST(VisionConfig, IsReadAsWritten) {
  for (const char* tower : kTowers) {
    VisionConfig config = tiny_vision(tower);
    config.before = "<b>";
    config.image_text = "<i>";
    config.fit = ImageFit::kCrop;
    config.resize = 40;
    config.filter = ImageFilter::kLanczos;
    config.mean = {0.1f, 0.2f, 0.3f};
    EXPECT_EQ(vision_from_json(to_json(config), "x"), config);
  }
}

// Every field beyond its bounds, of another type, left out, or not fitting the others.
TEST(VisionConfig, HostileOnesAreRefusedByField) {
  const json good = json::parse(to_json(tiny_vision()));
  const auto refused = [&](const json& bad, const std::string& field) {
    try {
      vision_from_json(bad.dump(), "file.crumb");
      ADD_FAILURE() << field << " = " << bad.value(field, json()) << " was taken";
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("file.crumb"), std::string::npos) << error.what();
    }
  };
  for (const auto& [field, value] : good.items()) {
    json missing = good, other = good;
    missing.erase(field);
    refused(missing, field);
    other[field] = json::array({1});
    refused(other, field);
    if (!value.is_number()) continue;
    for (const json& extreme : {json(-1), json(int64_t{1} << 40), json(1e300), json("1")}) {
      json bad = good;
      bad[field] = extreme;
      refused(bad, field);
    }
    if (!value.is_number_integer() || field == "hidden") continue;
    json zero = good;
    zero[field] = 0;
    refused(zero, field);
  }
  const std::pair<const char*, json> cases[] = {{"heads", 5},
                                                {"heads", 48},
                                                {"patch", 25},
                                                {"unshuffle", 4},
                                                {"resize", 32},
                                                {"image", 2048},
                                                {"architecture", "x"},
                                                {"activation", "relu"},
                                                {"fit", "tile"},
                                                {"filter", "nearest"},
                                                {"mean", {1, 2}},
                                                {"std", {1, 0, 1}},
                                                {"std", {1, 1, "1"}},
                                                {"mean", {99, 0, 0}},
                                                {"before", std::string(2000, 'x')},
                                                {"after", 1},
                                                {"more", 1},
                                                {"dim", 32768}};
  for (const auto& [field, value] : cases) {
    json bad = good;
    bad[field] = value;
    refused(bad, field);
  }
}

TEST(VisionCheckpoint, HoldsEverything) {
  const test::TempDir dir;
  for (const char* tower : kTowers)
    for (const bool banded : {false, true}) {
      const SourceModel model = tiny_model(seeing(tower));
      const auto plans =
          banded ? test::banded_plans(model.config) : test::mixed_plans(model.config);
      test::write_crumb(dir.file("a.crumb"), model, plans);
      const Checkpoint file = Checkpoint::open(dir.file("a.crumb"));
      ASSERT_TRUE(file.config().vision);
      EXPECT_EQ(*file.config().vision, *model.config.vision);
      EXPECT_NE(file.metadata().at("required").find("vision"), std::string::npos);
      EXPECT_TRUE(file.verify().empty());
      const SourceModel again = open_source(dir.file("a.crumb"));
      for (const TensorInfo& info : vision_table(model.config)) {
        const auto values = test::read_tensor(again, info);
        if (!may_be_quantized(info.role)) {
          EXPECT_EQ(values, test::read_tensor(model, info)) << info.name;
        }
      }
    }
}

// A reader that did not know towers would take the file for a text model's: the feature is in
// `required`, and its lack is an error.
TEST(VisionCheckpoint, TheFeatureMustBeSaid) {
  const test::TempDir dir;
  const SourceModel model = tiny_model(seeing("dinov2"));
  test::write_crumb(dir.file("a.crumb"), model, test::mixed_plans(model.config));
  auto bytes = test::read_bytes(dir.file("a.crumb"));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto required = text.find("\"required\":\"");
  const auto at = text.find("vision", required);
  ASSERT_LT(at - required, 40u);
  for (const char* other : {"rotati", "visiom"}) {
    std::copy_n(other, 6, bytes.begin() + static_cast<std::ptrdiff_t>(at));
    test::write_bytes(dir.file("b.crumb"), bytes);
    EXPECT_THROW(Checkpoint::open(dir.file("b.crumb")), FormatError) << other;
  }
}

TEST(VisionCheckpoint, TextFormatsRefuseTheTower) {
  const test::TempDir dir;
  const SourceModel model = tiny_model(seeing("dinov2"));
  EXPECT_THROW(write_gguf(model, dir.file("a.gguf")), Error);
  std::filesystem::create_directory(dir.file("folder"));
  EXPECT_THROW(write_hugging_face(model, dir.file("folder"), FloatType::kF32), Error);
}

// --- folders -------------------------------------------------------------------------------

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Tensor>;

void write_tensors(const std::string& path, const Tensors& tensors,
                   const std::map<std::string, std::string>& metadata = {}) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::vector<uint8_t> data;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t begin = data.size(), size = tensor.values.size() * sizeof(float);
    data.resize(begin + size);
    std::memcpy(data.data() + begin, tensor.values.data(), size);
    header[name] = {
        {"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, begin + size}}};
  }
  const std::string text = header.dump();
  std::vector<uint8_t> bytes;
  for (int shift = 0; shift < 64; shift += 8)
    bytes.push_back(static_cast<uint8_t>(text.size() >> shift));
  bytes.insert(bytes.end(), text.begin(), text.end());
  bytes.insert(bytes.end(), data.begin(), data.end());
  test::write_bytes(path, bytes);
}

void write_json(const std::string& path, const json& value) {
  const std::string text = value.dump();
  test::write_bytes(path, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

// Written out here, not taken from the table that is tested.
std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}
std::string dino_name(std::string name, bool matrix) {
  const std::pair<const char*, const char*> names[] = {
      {"patch_embed", "embeddings.patch_embeddings.projection"},
      {"class_embed", "embeddings.cls_token"},
      {"position_embed", "embeddings.position_embeddings"},
      {"final_norm", "layernorm"},
      {"layers.", "encoder.layer."},
      {"q_proj", "attention.attention.query"},
      {"k_proj", "attention.attention.key"},
      {"v_proj", "attention.attention.value"},
      {"o_proj", "attention.output.dense"},
      {"scale1", "layer_scale1.lambda1"},
      {"scale2", "layer_scale2.lambda1"},
      {"fc1", "mlp.fc1"},
      {"fc2", "mlp.fc2"}};
  for (const auto& [ours, theirs] : names) name = replaced(name, ours, theirs);
  return name + (matrix ? ".weight" : "");
}
std::string clip_name(std::string name, bool matrix) {
  if (name == "position_embed") return "embeddings.position_embedding.weight";
  const std::pair<const char*, const char*> names[] = {
      {"patch_embed", "embeddings.patch_embedding"},
      {"class_embed", "embeddings.class_embedding"},
      {"pre_norm", "pre_layrnorm"},
      {"final_norm", "post_layernorm"},
      {"layers.", "encoder.layers."},
      {"norm1", "layer_norm1"},
      {"norm2", "layer_norm2"},
      {"q_proj", "self_attn.q_proj"},
      {"k_proj", "self_attn.k_proj"},
      {"v_proj", "self_attn.v_proj"},
      {"o_proj", "self_attn.out_proj"},
      {"fc1", "mlp.fc1"},
      {"fc2", "mlp.fc2"}};
  for (const auto& [ours, theirs] : names) name = replaced(name, ours, theirs);
  return name + (matrix ? ".weight" : "");
}

Tensor read(const SourceModel& model, const TensorInfo& info) {
  return {info.shape, test::read_tensor(model, info)};
}

// The tower's tensors under `prefix`, shaped as the transformers package has them.
Tensors tower_tensors(const SourceModel& model, const std::string& prefix = "") {
  const VisionConfig& v = *model.config.vision;
  Tensors out;
  for (const TensorInfo& info : vision_table(model.config)) {
    if (!info.name.starts_with("vision.")) continue;
    const bool matrix = may_be_quantized(info.role);
    const std::string name = info.name.substr(7);
    Tensor tensor = read(model, info);
    if (name == "patch_embed") tensor.shape = {v.dim, 3, v.patch, v.patch};
    if (v.architecture == "dinov2") {
      if (name == "class_embed") tensor.shape = {1, 1, v.dim};
      if (name == "position_embed") tensor.shape.insert(tensor.shape.begin(), 1);
      out[prefix + dino_name(name, matrix)] = tensor;
    } else {
      out[prefix + clip_name(name, matrix)] = tensor;
    }
  }
  return out;
}

json tower_config(const VisionConfig& v) {
  json config = {{"model_type", v.architecture},
                 {"hidden_size", v.dim},
                 {"num_hidden_layers", v.layers},
                 {"num_attention_heads", v.heads},
                 {"patch_size", v.patch},
                 {"image_size", v.image},
                 {"layer_norm_eps", double{v.norm_eps}}};
  if (v.architecture == "dinov2")
    config["mlp_ratio"] = v.ffn / v.dim;
  else
    config["intermediate_size"] = v.ffn;
  return config;
}

json processor_config(const VisionConfig& v) {
  return {{"size", {{"longest_edge", v.image}}},
          {"do_pad", true},
          {"resample", 2},
          {"image_mean", {0.5, 0.5, 0.5}},
          {"image_std", {0.5, 0.5, 0.5}},
          {"rescale_factor", 1.0 / 255}};
}

Tensors projector_tensors(const SourceModel& model) {
  Tensors out;
  for (const TensorInfo& info : vision_table(model.config))
    if (info.name.starts_with("projector."))
      out[info.name + (may_be_quantized(info.role) ? ".weight" : "")] = read(model, info);
  return out;
}

class Folder : public testing::Test {
 protected:
  void write_tower(const SourceModel& model, const json& config, const json& processor,
                   const Tensors& tensors) {
    std::filesystem::create_directories(tower_);
    write_json(tower_ + "/config.json", config);
    write_json(tower_ + "/preprocessor_config.json", processor);
    write_tensors(tower_ + "/model.safetensors", tensors);
    write_tensors(projector_, projector_tensors(model), {{"after", "\n"}});
  }
  void write_tower(const SourceModel& model) {
    write_tower(model, tower_config(*model.config.vision), processor_config(*model.config.vision),
                tower_tensors(model));
  }
  SourceModel blind(const SourceModel& model) {
    SourceModel text = model;
    text.config.vision.reset();
    return text;
  }
  void expect_refused(const SourceModel& model, const std::string& what) {
    SourceModel text = blind(model);
    try {
      add_vision(tower_, projector_, &text);
      ADD_FAILURE() << what << " was taken";
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  }

  test::TempDir dir_;
  std::string tower_ = dir_.file("tower"), projector_ = dir_.file("projector.safetensors");
};

TEST_F(Folder, TowersOfEveryRowAreRead) {
  for (const char* tower : kTowers) {
    const SourceModel model = tiny_model(seeing(tower));
    auto tensors = tower_tensors(model);
    // What is there and makes no rows.
    tensors[model.config.vision->architecture == "dinov2" ? "embeddings.mask_token"
                                                          : "embeddings.position_ids"] = {{1}, {0}};
    write_tower(model, tower_config(*model.config.vision), processor_config(*model.config.vision),
                tensors);
    SourceModel seen = blind(model);
    add_vision(tower_, projector_, &seen);
    ASSERT_TRUE(seen.config.vision);
    EXPECT_EQ(*seen.config.vision, *model.config.vision) << tower;
    expect_same_tensors(seen, model, model.config);
    EXPECT_NE(seen.hash, model.hash);
    EXPECT_THROW(add_vision(tower_, projector_, &seen), Error) << "it sees already";
  }
}

TEST_F(Folder, PreprocessorsSayHowImagesFit) {
  const SourceModel model = tiny_model(seeing("dinov2"));
  const auto config = tower_config(*model.config.vision);
  const auto read = [&](json changes) {
    json processor = processor_config(*model.config.vision);
    processor.update(changes);
    write_tower(model, config, processor, tower_tensors(model));
    SourceModel text = blind(model);
    add_vision(tower_, projector_, &text);
    return *text.config.vision;
  };
  const VisionConfig cropped = read({{"size", {{"shortest_edge", 32}}},
                                     {"do_center_crop", true},
                                     {"crop_size", {{"height", 24}, {"width", 24}}},
                                     {"resample", 3}});
  EXPECT_EQ(cropped.fit, ImageFit::kCrop);
  EXPECT_EQ(cropped.resize, 32);
  EXPECT_EQ(cropped.filter, ImageFilter::kBicubic);
  EXPECT_EQ(read({{"size", {{"height", 24}, {"width", 24}}}}).fit, ImageFit::kStretch);
  EXPECT_EQ(read({{"do_normalize", false}}).std[1], 1.0f);
  for (const json& bad : {json{{"resample", 0}}, json{{"rescale_factor", 1}},
                          json{{"image_mean", {1}}}, json{{"size", "big"}},
                          json{{"size", {{"longest_edge", 25}}}}, json{{"image_std", {0, 1, 1}}}})
    EXPECT_THROW(read(bad), FormatError) << bad;
}

TEST_F(Folder, DamageIsNamed) {
  const SourceModel model = tiny_model(seeing("dinov2"));
  const auto config = tower_config(*model.config.vision);
  const auto processor = processor_config(*model.config.vision);
  const auto tensors = tower_tensors(model);
  Tensors missing = tensors, more = tensors, misshapen = tensors;
  missing.erase("layernorm.bias");
  more["surprise"] = {{1}, {1}};
  misshapen["layernorm.bias"].shape = {2, 24};
  write_tower(model, config, processor, missing);
  expect_refused(model, "layernorm.bias");
  write_tower(model, config, processor, more);
  expect_refused(model, "surprise");
  write_tower(model, config, processor, misshapen);
  expect_refused(model, "layernorm.bias");
  const std::pair<const char*, json> cases[] = {
      {"model_type", "resnet"}, {"hidden_size", -1},    {"num_attention_heads", 5},
      {"patch_size", 7},        {"hidden_act", "relu"}, {"use_swiglu_ffn", true},
      {"mlp_ratio", 1e30},      {"num_channels", 4},    {"num_hidden_layers", 1e9}};
  for (const auto& [field, value] : cases) {
    json bad = config;
    bad[field] = value;
    write_tower(model, bad, processor, tensors);
    SourceModel text = blind(model);
    EXPECT_THROW(add_vision(tower_, projector_, &text), FormatError) << field;
  }
  write_tower(model);
  std::filesystem::remove(tower_ + "/preprocessor_config.json");
  expect_refused(model, "preprocessor_config.json");
}

TEST_F(Folder, ProjectorsMustFit) {
  const SourceModel model = tiny_model(seeing("dinov2"));
  write_tower(model);
  const auto good = projector_tensors(model);
  const auto expect = [&](const Tensors& tensors, const std::string& what,
                          const std::map<std::string, std::string>& metadata = {}) {
    write_tensors(projector_, tensors, metadata);
    expect_refused(model, what);
  };
  Tensors bad = good;
  bad.erase("projector.linear_1.weight");
  expect(bad, "projector.linear_1.weight");
  bad = good;
  bad.erase("projector.linear_2.bias");
  expect(bad, "expected 4 of a projector");
  bad = good;
  bad["projector.linear_2.weight"].shape = {80, 64};
  expect(bad, "projector.linear_2.weight");
  bad = good;
  bad["projector.linear_1.weight"] = {{80, 48 * 3}, std::vector<float>(80 * 48 * 3)};
  expect(bad, "u^2");
  bad["projector.linear_1.weight"] = {{80, 47}, std::vector<float>(80 * 47)};
  expect(bad, "multiple of 48");
  expect(good, "projector_activation", {{"activation", "relu"}});
  write_tensors(projector_, good, {{"activation", "quick_gelu"}, {"before", "<b>"}});
  SourceModel text = blind(model);
  add_vision(tower_, projector_, &text);
  EXPECT_EQ(text.config.vision->projector_activation, VisionActivation::kQuickGelu);
  EXPECT_EQ(text.config.vision->before, "<b>");
}

// Folders that hold all three: the decoder's tensors and config as the exporter writes them, under
// the prefixes of each kind.
struct Whole {
  const char* model_type;
  const char *tower_row, *text, *head, *tower, *linear_1, *linear_2;
  bool template_sees = true;
};
void PrintTo(const Whole& row, std::ostream* out) { *out << row.model_type; }
constexpr Whole kWholes[] = {
    {"llava", "clip_vision_model", "language_model.model.", "language_model.lm_head",
     "vision_tower.vision_model.", "multi_modal_projector.linear_1",
     "multi_modal_projector.linear_2", false},
    {"llava", "clip_vision_model", "model.language_model.", "lm_head",
     "model.vision_tower.vision_model.", "model.multi_modal_projector.linear_1",
     "model.multi_modal_projector.linear_2"},
    {"smolvlm", "idefics3_vision", "model.text_model.", "lm_head", "model.vision_model.",
     "model.connector.modality_projection.proj", ""},
    {"idefics3", "idefics3_vision", "model.text_model.", "lm_head", "model.vision_model.",
     "model.connector.modality_projection.proj", ""},
};

class WholeFolder : public testing::TestWithParam<Whole> {
 protected:
  SourceModel make_model() const {
    const Whole& row = GetParam();
    TinyOptions options = seeing(row.tower_row);
    options.tied_head = false;
    VisionConfig& v = *options.vision;
    const bool llava = std::string_view(row.model_type) == "llava";
    if (llava) {
      v.unshuffle = 1;
      v.final_norm = false;
      v.after = row.template_sees ? "" : "\n";
    } else {
      v.hidden = 0;
      v.projector_bias = false;
      v.fit = ImageFit::kStretch;
      v.filter = ImageFilter::kLanczos;
      v.before = "<fake_token_around_image><global-img>";
      v.after = "<fake_token_around_image>";
    }
    if (row.template_sees) v.image_text = "<image>";
    SourceModel model = tiny_model(options);
    if (row.template_sees) model.chat_template = "{{ '<image>' }}";
    return model;
  }

  void write(const SourceModel& model, const std::string& folder) const {
    const Whole& row = GetParam();
    SourceModel text = model;
    text.config.vision.reset();
    std::filesystem::create_directories(folder);
    write_hugging_face(text, folder, FloatType::kF32);
    Tensors tensors = tower_tensors(model, row.tower);
    for (const TensorInfo& info : vision_table(model.config)) {
      if (!info.name.starts_with("projector.")) continue;
      const std::string base =
          info.name.starts_with("projector.linear_1") ? row.linear_1 : row.linear_2;
      tensors[base + (may_be_quantized(info.role) ? ".weight" : ".bias")] = read(model, info);
    }
    const auto bytes = test::read_bytes(folder + "/model.safetensors");
    for (const SafetensorsEntry& entry : parse_safetensors(bytes, "text").tensors) {
      std::string name = entry.name;
      name = name.starts_with("model.") ? row.text + name.substr(6) : row.head + name.substr(7);
      Tensor tensor{entry.shape, std::vector<float>((entry.end - entry.begin) / 4)};
      std::memcpy(tensor.values.data(), parse_safetensors(bytes, "text").data.data() + entry.begin,
                  entry.end - entry.begin);
      tensors[name] = tensor;
    }
    // Older folders call the tower as the whole.
    json config = {{"model_type", row.model_type},
                   {"tie_word_embeddings", false},
                   {"vision_config", tower_config(*model.config.vision)}};
    // 2 is what is meant where none is said, and 1 by LLaVA.
    if (std::string_view(row.model_type) == "smolvlm")
      config["scale_factor"] = model.config.vision->unshuffle;
    if (std::string_view(row.model_type) == "idefics3")
      config["vision_config"]["model_type"] = "idefics3";
    const auto own = test::read_bytes(folder + "/config.json");
    config["text_config"] = json::parse(own.begin(), own.end());
    config["text_config"]["model_type"] = "llama";
    config["text_config"].erase("architectures");
    json processor = processor_config(*model.config.vision);
    if (std::string_view(row.model_type) == "llava") {
      // One layer more than is read.
      config["vision_config"]["num_hidden_layers"] = model.config.vision->layers + 1;
      tensors[std::string(row.tower) + "encoder.layers.2.mlp.fc1.bias"] = {{1}, {0}};
      tensors[std::string(row.tower) + "post_layernorm.bias"] = {{1}, {0}};
    } else {
      processor.update(
          {{"do_image_splitting", true}, {"resample", 1}, {"size", {{"longest_edge", 2048}}}});
    }
    write_json(folder + "/config.json", config);
    write_json(folder + "/preprocessor_config.json", processor);
    write_tensors(folder + "/model.safetensors", tensors);
  }

  test::TempDir dir_;
};

TEST_P(WholeFolder, IsReadByItsRow) {
  const SourceModel model = make_model();
  const std::string folder = dir_.file("whole");
  write(model, folder);
  const SourceModel read = open_source(folder);
  ASSERT_TRUE(read.config.vision);
  EXPECT_EQ(*read.config.vision, *model.config.vision);
  EXPECT_EQ(read.config.architecture, "llama");
  expect_same_tensors(read, model, model.config);
}

INSTANTIATE_TEST_SUITE_P(Rows, WholeFolder, testing::ValuesIn(kWholes));

}  // namespace
}  // namespace crumb::models
