// config.json of Hugging Face folders. What is accepted is lawful, and comes back from our own
// record of it.
#include "models/hugging_face_config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace crumb;
  const std::string text(reinterpret_cast<const char*>(data), size);
  models::ModelConfig config;
  if (!fuzz::accepts([&] { config = models::read_hugging_face_config(text, "input").config; }))
    return 0;
  if (!fuzz::accepts([&] { models::validate(config, "input"); }))
    fuzz::finding("an unlawful config was accepted");
  const std::string record = models::to_json(config);
  if (models::to_json(models::config_from_json(record, "input")) != record)
    fuzz::finding("the record of a config reads back as another");
  return 0;
}
