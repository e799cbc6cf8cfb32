// Whether a program still computes the same numbers from a model.
#pragma once
#include <string>

#include "engine/engine.h"

namespace crumb::eval {

// Hash of the model's tokens of a fixed text and of all bits of the logits after them, most read
// in one prefill, the last four one by one. Answers kept under one fingerprint are not used when
// another build of the program, another kernel or cache type gives other bits.
std::string fingerprint(const Engine& engine, kernels::KvType kv);

}  // namespace crumb::eval
