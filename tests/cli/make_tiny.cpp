// Writes the small random model as a GGUF file, or one that sees as a checkpoint in floats:
//   make_tiny OUT.gguf [LAYERS DIM CONTEXT [TENSOR FACTOR | --template FILE]]
//   make_tiny OUT.crumb --vision TOWER
// The larger forms are slow enough to be interrupted; the values of one tensor may be multiplied,
// by nan too; the chat template may be another one.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <span>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/export.h"
#include "models/tiny_model.h"

namespace {

void write_seeing(const char* tower, const char* path) {
  using namespace crumb::models;
  TinyOptions options;
  options.vision = tiny_vision(tower);
  const SourceModel model = tiny_model(options);
  std::vector<MatrixPlan> plans;
  for (const TensorInfo& info : whole_table(model.config)) {
    if (!may_be_quantized(info.role)) continue;
    plans.emplace_back();
    plans.back().name = info.name;
    plans.back().bits = 32;
  }
  CheckpointWriter writer(path, header_of(model, "{}"), plans);
  for (const TensorInfo& info : whole_table(model.config)) {
    std::vector<float> values(static_cast<std::size_t>(weights_of(info)));
    model.read(info.name, values);
    writer.add(info.name, values);
  }
  writer.commit();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[2]) == "--vision") {
    try {
      write_seeing(argv[3], argv[1]);
      return 0;
    } catch (const std::exception& e) {
      std::fprintf(stderr, "make_tiny: %s\n", e.what());
      return 1;
    }
  }
  if (argc != 2 && argc != 5 && argc != 7) {
    std::fprintf(
        stderr,
        "usage: make_tiny OUT.gguf [LAYERS DIM CONTEXT [TENSOR FACTOR | --template FILE]]\n"
        "       make_tiny OUT.crumb --vision TOWER\n");
    return 2;
  }
  crumb::models::TinyOptions options;
  if (argc >= 5) {
    options.layers = std::atoll(argv[2]);
    options.dim = std::atoll(argv[3]);
    options.context = std::atoll(argv[4]);
    options.ffn = 2 * options.dim;
    options.head_dim = options.dim / options.heads;
  }
  try {
    auto model = crumb::models::tiny_model(options);
    if (argc == 7 && std::string_view(argv[5]) == "--template") {
      std::ifstream file(argv[6], std::ios::binary);
      model.chat_template.assign(std::istreambuf_iterator<char>(file), {});
    } else if (argc == 7) {
      model.read = [read = model.read, changed = std::string_view(argv[5]),
                    factor = std::strtof(argv[6], nullptr)](std::string_view name,
                                                            std::span<float> out) {
        read(name, out);
        if (name == changed)
          for (float& value : out) value *= factor;
      };
    }
    crumb::models::write_gguf(model, argv[1]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "make_tiny: %s\n", e.what());
    return 1;
  }
  return 0;
}
