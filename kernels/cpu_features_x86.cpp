// cpuid says what the CPU has, xgetbv whether the operating system saves those registers: an AVX
// instruction under a system that does not would fault or lose state at the next task switch.
#include "kernels/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace crumb::kernels {
namespace {

struct Registers {
  uint32_t ebx1 = 0, ecx1 = 0;            // leaf 1
  uint32_t ebx7 = 0, ecx7 = 0, edx7 = 0;  // leaf 7, subleaf 0
  uint64_t xcr0 = 0;                      // register states the system saves
};

Registers read_registers() noexcept {
  Registers r;
  uint32_t eax = 0;
  uint32_t edx = 0;
  if (__get_cpuid(1, &eax, &r.ebx1, &r.ecx1, &edx) == 0) return {};
  if (__get_cpuid_count(7, 0, &eax, &r.ebx7, &r.ecx7, &r.edx7) == 0) r.ebx7 = r.ecx7 = r.edx7 = 0;
  constexpr uint32_t kOsxsave = 1u << 27;
  if ((r.ecx1 & kOsxsave) != 0) {
    uint32_t low = 0;
    uint32_t high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    r.xcr0 = (static_cast<uint64_t>(high) << 32) | low;
  }
  return r;
}

// One feature: the register that announces it, its bit, and the states it needs saved.
struct Feature {
  std::string_view name;
  uint32_t Registers::*reg;
  int bit;
  uint64_t states;
};
constexpr uint64_t kYmm = 0x06;              // xmm, ymm
constexpr uint64_t kZmm = 0xe6;              // xmm, ymm, masks, zmm 0-15 high halves, zmm 16-31
constexpr uint64_t kTiles = kZmm | 0x60000;  // and AMX's tile configuration and data
constexpr std::size_t kAvx2Count = 3, kAvx512Count = 8;
constexpr std::array<Feature, 10> kFeatures = {{
    {"avx2", &Registers::ebx7, 5, kYmm},
    {"fma", &Registers::ecx1, 12, kYmm},
    {"f16c", &Registers::ecx1, 29, kYmm},
    {"avx512f", &Registers::ebx7, 16, kZmm},
    {"avx512dq", &Registers::ebx7, 17, kZmm},
    {"avx512bw", &Registers::ebx7, 30, kZmm},
    {"avx512vl", &Registers::ebx7, 31, kZmm},
    {"avx512vnni", &Registers::ecx7, 11, kZmm},
    {"amx_tile", &Registers::edx7, 24, kTiles},
    {"amx_int8", &Registers::edx7, 25, kTiles},
}};

bool has(const Registers& r, const Feature& f) noexcept {
  return ((r.*f.reg >> f.bit) & 1u) != 0 && (r.xcr0 & f.states) == f.states;
}

bool may_use_tiles() noexcept {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct Description {
  std::array<char, 128> text = {};
  std::size_t size = 0;
};

Description make_description() noexcept {
  Description d;
  const Registers r = read_registers();
  for (const Feature& f : kFeatures) {
    if (!has(r, f)) continue;
    if (d.size != 0) d.text[d.size++] = ' ';
    for (const char c : f.name) d.text[d.size++] = c;
  }
  return d;
}

}  // namespace

CpuFeatures detect_cpu() noexcept {
  const Registers r = read_registers();
  CpuFeatures cpu{true, true, true};
  for (std::size_t i = 0; i < kFeatures.size(); ++i) {
    if (has(r, kFeatures[i])) continue;
    cpu.amx = false;
    if (i < kAvx512Count) cpu.avx512vnni = false;
    if (i < kAvx2Count) cpu.avx2 = false;
  }
  cpu.amx = cpu.amx && may_use_tiles();
  return cpu;
}

std::string_view describe_cpu() noexcept {
  static const Description kDescription = make_description();
  return {kDescription.text.data(), kDescription.size};
}

}  // namespace crumb::kernels
