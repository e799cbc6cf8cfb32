// Writes the small random model as a GGUF file:
//   make_tiny OUT.gguf [LAYERS DIM CONTEXT [TENSOR FACTOR | --template FILE]]
// The larger forms are slow enough to be interrupted; the values of one tensor may be multiplied,
// by nan too; the chat template may be another one.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <span>
#include <string_view>

#include "models/export.h"
#include "models/tiny_model.h"

int main(int argc, char** argv) {
  if (argc != 2 && argc != 5 && argc != 7) {
    std::fprintf(
        stderr,
        "usage: make_tiny OUT.gguf [LAYERS DIM CONTEXT [TENSOR FACTOR | --template FILE]]\n");
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
