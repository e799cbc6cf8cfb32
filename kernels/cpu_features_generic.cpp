// A CPU for which only the scalar backend exists.
#include "kernels/cpu_features.h"

namespace crumb::kernels {

CpuFeatures detect_cpu() noexcept { return {}; }
std::string_view describe_cpu() noexcept { return ""; }

}  // namespace crumb::kernels
