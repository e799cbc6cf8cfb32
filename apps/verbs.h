// The verbs of the one binary. A verb parses its arguments, calls a library and prints.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "apps/context.h"

namespace crumb::apps {

// Each returns the exit code; failures are exceptions, turned into text and code by main.
int chat(Context& context);
int run(Context& context);
int serve(Context& context);
int bench(Context& context);
int quantize(Context& context);
int train(Context& context);
int eval(Context& context);
int search(Context& context);
int inspect(Context& context);
int tokenize(Context& context);
int convert(Context& context);
int estimate(Context& context);
int topo(Context& context);
int doctor(Context& context);
int config(Context& context);
int completion(Context& context);
int man(Context& context);
int version(Context& context);

struct Verb {
  std::string_view name, summary;  // no summary: not listed
  int (*run)(Context&);
  bool settings = true;  // reads the environment and config.toml
};
std::span<const Verb> verbs();

// The options of every verb, by running each with context.table.
std::vector<Command> option_table();

}  // namespace crumb::apps
