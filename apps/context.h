// What a verb is called with.
#pragma once
#include <string>
#include <vector>

#include "apps/option_table.h"
#include "apps/signals.h"

namespace crumb::apps {

class Settings;

struct Context {
  std::string program;                    // "crumb run", for help and errors
  std::vector<std::string> args;          // what follows the verb
  Settings* settings = nullptr;           // values for options that were not given; may be null
  std::vector<Command>* table = nullptr;  // if set, a verb adds its options here and does nothing
  Signals signals;
};

}  // namespace crumb::apps
