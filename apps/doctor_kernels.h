// Every kernel of a backend against the scalar specification, on this very machine.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace crumb::apps {

struct KernelCheck {
  std::string name;    // "matmul INT4 g64 asym, 5 tokens"
  bool equal = false;  // bit for bit
};
// Deterministic random data. Takes a few milliseconds.
std::vector<KernelCheck> check_kernels(const kernels::Backend& backend);

}  // namespace crumb::apps
