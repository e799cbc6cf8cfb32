// What Linux says of the CPU in the auxiliary vector (HWCAP); NEON itself is part of AArch64.
#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "kernels/cpu_features.h"

namespace crumb::kernels {

CpuFeatures detect_cpu() noexcept {
  CpuFeatures cpu;
  cpu.neon = true;
  cpu.neon_dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  cpu.neon_i8mm = cpu.neon_dotprod && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
  return cpu;
}

std::string_view describe_cpu() noexcept {
  const CpuFeatures cpu = detect_cpu();
  if (cpu.neon_i8mm) return "neon dotprod i8mm";
  return cpu.neon_dotprod ? "neon dotprod" : "neon";
}

}  // namespace crumb::kernels
