// The command line of `crumb train`: a recipe, and what is edited in it.
#pragma once
#include <optional>
#include <string>

#include "apps/model_args.h"
#include "apps/verbs.h"
#include "quant/train/train_recipe.h"

namespace crumb::apps {

struct TrainArgs {
  std::string recipe, teacher, start, masters, output, state, compact, from_compact;
  std::optional<int64_t> steps;
  std::optional<double> gate;
  double seconds = 0;
  int64_t check_windows = 2;
  int64_t memory = 0;  // ceiling in bytes, 0: none
  ModelArgs model;     // only its threads
  bool dry_run = false, json = false, force = false, quiet = false;
  bool own_state() const { return state.empty(); }
  // Prefix of the full states: --state, else beside the output, removed once that is written.
  std::string state_prefix() const { return own_state() ? output + ".state" : state; }
};

// False if help was asked for and shown. Throws Error(kUsage).
bool parse(Context& context, TrainArgs& given);

// The recipe's file as edited. Throws Error(kUsage) if teacher or start are nowhere, IoError.
quant::train::TrainRecipe train_recipe(const TrainArgs& given);

}  // namespace crumb::apps
