#include "apps/verbs.h"

namespace crumb::apps {
namespace {

constexpr Verb kVerbs[] = {
    {"chat", "talk with a model (what `crumb` alone does on a terminal)", chat},
    {"run", "answer one prompt, the answer alone on stdout", run},
    {"serve", "OpenAI's API over HTTP, many answers at a time", serve},
    {"bench", "tokens per second, beside the memory's bandwidth", bench},
    {"quantize", "make a model small", quantize},
    {"train", "distill a small model from a large one's answers", train},
    {"eval", "perplexity, divergence, logits", eval},
    {"search", "evolve what predicts the cost of widths", search},
    {"inspect", "what is in a model file", inspect},
    {"tokenize", "text to token ids and back", tokenize},
    {"convert", "write a model for other programs", convert},
    {"estimate", "how much memory a model would take", estimate},
    {"topo", "which cores would be used, and why", topo},
    {"doctor", "check kernels, memory, threads, folders", doctor},
    {"config", "settings and where each comes from", config, false},
    {"completion", "completion of options for bash, zsh or fish", completion, false},
    {"version", "version, build and environment", version, false},
    {"man", "", man, false},
};

}  // namespace

std::span<const Verb> verbs() { return kVerbs; }

std::vector<Command> option_table() {
  std::vector<Command> table;
  for (const auto& verb : kVerbs) {
    Context context;
    context.program = "crumb " + std::string(verb.name);
    context.table = &table;
    verb.run(context);
  }
  return table;
}

}  // namespace crumb::apps
