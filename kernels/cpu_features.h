// What this CPU and its operating system let us execute.
#pragma once
#include <string_view>

namespace crumb::kernels {

struct CpuFeatures {
  bool avx2 = false;          // AVX2, FMA and F16C, with the ymm state saved by the system
  bool avxvnni = false;       // AVX-VNNI (vpdpbusd of ymm without AVX-512), and avx2
  bool avx512vnni = false;    // AVX-512 F, BW, VL, DQ and VNNI, with the zmm state saved, and avx2
  bool neon = false;          // ARMv8-A
  bool neon_dotprod = false;  // SDOT
  bool neon_i8mm = false;     // USDOT, and neon_dotprod
  bool amx = false;           // AMX tiles and INT8, granted by the system, and avx512vnni
};

// Cheap enough to call a few times. Where the CPU has AMX it asks the system for the tiles' state,
// which Linux keeps from a process until then (arch_prctl ARCH_REQ_XCOMP_PERM).
CpuFeatures detect_cpu() noexcept;
// The features behind detect_cpu(), space separated, in a fixed order; "" if none is known.
std::string_view describe_cpu() noexcept;

}  // namespace crumb::kernels
