// Tasks whose answers are generated texts.
#include "bench/eval/task.h"

namespace crumb::eval {

std::span<const Task> generative_tasks() { return {}; }

}  // namespace crumb::eval
