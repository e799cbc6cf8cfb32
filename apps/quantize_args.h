// The command line of `crumb quantize`, and the options of the job that it stands for.
#pragma once
#include <optional>
#include <string>

#include "apps/model_args.h"
#include "apps/verbs.h"
#include "quant/quantize.h"

namespace crumb::apps {

// Of one kind of tensor, as the user writes it; numbers are checked, but what a matrix can have is
// quant/'s business.
struct TensorArgs {
  std::string method, group;  // empty: not given
  std::optional<int> bits;
};

struct QuantizeArgs {
  std::string source, output, report, preset, recipe;
  TensorArgs linear, embedding, head;
  std::string vision, projector;                      // folder and file; empty: none
  std::optional<int> vision_bits;                     // of tower and projector; none: 8
  std::string grid, search, order, scales, equalise;  // empty: the method's
  std::optional<int> greedy, trials, refits;
  std::optional<double> damping;
  int64_t rotate = -1;  // < 0: the method's
  int64_t seed = 1;
  std::string calibration;  // file; empty: the default corpus
  std::string cache;        // folder; empty: none
  int64_t windows = 32, window = 512, calibration_seed = 1;
  std::string inputs, weights;            // empty: the preset's
  std::optional<double> shift, residual;  // likewise
  std::optional<int64_t> wide_rows;       // likewise
  // Widths by a budget; 0: none. At most one of the three targets.
  double target_bpw = 0;
  int64_t target_size = 0;
  std::string allocate, granularity = "bands";  // allocate empty: "baq" if there is a target
  std::vector<int64_t> widths = {3, 4, 8};      // that other allocations choose from
  int64_t allocate_seed = 1;
  std::string proxy;  // file of --allocate emq
  double target_tps = 0;
  std::string latency;    // file of --target-tps
  std::string plan;       // file of --allocate apq
  double plan_limit = 0;  // which of its limits; 0: its only one
  int64_t output_windows = 8;
  std::string reconstruct = "none";
  int64_t epochs = 5;
  double rate = 0;                       // 0: the method's
  std::optional<double> learned_shift;   // of reconstruction; none: its default
  std::optional<double> gate;            // KL limit; none: the preset's
  std::optional<int64_t> check_windows;  // none: 2 for calibrated jobs
  int64_t memory = 0;                    // ceiling in bytes, 0: none
  ModelArgs model;                       // only its threads
  bool dry_run = false, json = false, force = false, quiet = false, verbose = false;
};

// "2G", "500M", "4096": bytes, in powers of 1024.
int64_t parse_size(const std::string& text, const char* option);

// False if help was asked for and shown. Throws Error(kUsage).
bool parse(Context& context, QuantizeArgs& given);

// Everything but the calibration text. A recipe stands for all options of methods.
quant::QuantizeOptions quantize_options(const QuantizeArgs& given,
                                        const models::ModelConfig& config);

}  // namespace crumb::apps
