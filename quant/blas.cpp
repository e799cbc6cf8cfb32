#include "quant/blas.h"

#include <cblas.h>

#include <cstdlib>
#include <string_view>

#include "kernels/cpu_features.h"

// What OpenBLAS calls itself when it is loaded, exported by builds with kernels for several CPUs;
// null in others.
extern "C" {
[[gnu::weak]] void gotoblas_dynamic_init();
[[gnu::weak]] void gotoblas_dynamic_quit();
}

namespace crumb::quant {
namespace {

constexpr const char* kVariable = "OPENBLAS_CORETYPE";
constexpr std::string_view kUnknownCpu = "Prescott";  // what an x86 of unknown model is taken for

// The only moment at which OpenBLAS reads the name is its initialisation, from the environment.
bool choose_kernels() {
  if (std::getenv(kVariable) != nullptr || openblas_get_corename() != kUnknownCpu) return false;
  if (gotoblas_dynamic_init == nullptr || gotoblas_dynamic_quit == nullptr) return false;
  const kernels::CpuFeatures cpu = kernels::detect_cpu();
  if (!cpu.avx2) return false;
  setenv(kVariable, cpu.avx512vnni ? "SkylakeX" : "Haswell", 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
  unsetenv(kVariable);
  return true;
}

}  // namespace

void prepare_blas() {
  static const bool once = choose_kernels();
  static_cast<void>(once);
  openblas_set_num_threads(1);
}

}  // namespace crumb::quant
