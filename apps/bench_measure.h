// Times a session on fixed token counts.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "apps/signals.h"
#include "engine/engine.h"

namespace crumb::apps {

// One row of the table: read `prompt` tokens at once, then `generate` one by one, at depth `depth`.
struct BenchTest {
  int64_t prompt = 0, generate = 0, depth = 0;
};
std::string name_of(
    const BenchTest& test);  // "pp512", "tg128@d4096", "pp512+tg128", as llama-bench

struct BenchRow {
  BenchTest test;
  std::vector<double> samples_ns;  // one a repetition, in the order they were run
  std::vector<double> token_ns;    // every generated token of every repetition
  std::vector<double> ttft_ns;     // prompt and first generated token, tests with both
  std::vector<double> phase_ns;    // of one token, in the order of kPhaseNames; empty unless asked
  uint64_t logits_hash = 0;        // xxh3 of the last logits, equal in every repetition
  std::string time;                // ISO 8601, UTC
};

// Warm-up once, then `repetitions` times. The tokens are pseudo-random, the same in every run;
// nothing is sampled and no text is made, as in llama-bench. Throws Error(kGate) if the last logits
// differ between two repetitions, Stopped.
// With `profile` the phases of a step are timed too, which costs a few microseconds a token.
BenchRow measure(Session& session, const Engine& engine, const BenchTest& test, int repetitions,
                 bool profile, Signals& signals);

struct Summary {
  double average = 0, deviation = 0, median = 0, lowest = 0, highest = 0;
  double spread = 0;  // (highest - lowest) / median
};
Summary summarise(const std::vector<double>& values);
double quantile(std::vector<double> values, double q);  // linear between ranks, 0 for none

// Tokens per second of every repetition.
std::vector<double> speeds(const BenchRow& row);

}  // namespace crumb::apps
