// Writes the small random model as a GGUF file: make_tiny OUT.gguf [LAYERS DIM CONTEXT]
// The larger forms are slow enough to be interrupted.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "models/tiny_model.h"

int main(int argc, char** argv) {
  if (argc != 2 && argc != 5) {
    std::fprintf(stderr, "usage: make_tiny OUT.gguf [LAYERS DIM CONTEXT]\n");
    return 2;
  }
  crumb::models::TinyOptions options;
  if (argc == 5) {
    options.layers = std::atoll(argv[2]);
    options.dim = std::atoll(argv[3]);
    options.context = std::atoll(argv[4]);
    options.ffn = 2 * options.dim;
    options.head_dim = options.dim / options.heads;
  }
  try {
    crumb::models::write_gguf(crumb::models::tiny_model(options), argv[1]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "make_tiny: %s\n", e.what());
    return 1;
  }
  return 0;
}
