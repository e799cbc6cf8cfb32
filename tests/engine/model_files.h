// Where the real model and the evaluation data are, if they are here.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace crumb::test {

inline std::string source_dir() {
  const char* dir = std::getenv("CRUMB_SOURCE_DIR");
  return dir != nullptr ? dir : ".";
}
inline std::optional<std::string> existing(const std::string& path) {
  if (std::filesystem::exists(path)) return path;
  return std::nullopt;
}
// SmolLM2-135M-Instruct as models/fetch.sh brings it.
inline std::optional<std::string> smollm2() {
  return existing(source_dir() + "/models/checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf");
}
// A file of the evaluation data: under $CRUMB_DATA, or beside the repository.
inline std::optional<std::string> data_file(const std::string& name) {
  if (const char* dir = std::getenv("CRUMB_DATA")) return existing(std::string(dir) + "/" + name);
  return existing(source_dir() + "/../shared/data/" + name);
}

}  // namespace crumb::test
