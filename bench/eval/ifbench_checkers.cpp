#include "bench/eval/instructions.h"
namespace crumb::eval {
std::span<const Checker> ifbench_checkers() { return {}; }
}
