// The verbs of the one binary. A verb parses its arguments, calls a library and prints.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "apps/signals.h"

namespace crumb::apps {

struct Context {
  std::string program;            // "crumb run", for help and errors
  std::vector<std::string> args;  // what follows the verb
  Signals signals;
};

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
int version(Context& context);

}  // namespace crumb::apps
