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
  uint32_t eax71 = 0;                     // leaf 7, subleaf 1
  uint64_t xcr0 = 0;                      // register states the system saves
};

Registers read_registers() noexcept {
  Registers r;
  uint32_t eax = 0;
  uint32_t ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &r.ebx1, &r.ecx1, &edx) == 0) return {};
  uint32_t last_subleaf = 0;
  if (__get_cpuid_count(7, 0, &last_subleaf, &r.ebx7, &r.ecx7, &r.edx7) == 0) last_subleaf = 0;
  if (last_subleaf >= 1) __get_cpuid_count(7, 1, &r.eax71, &ebx, &ecx, &edx);
  constexpr uint32_t kOsxsave = 1u << 27;
  if ((r.ecx1 & kOsxsave) != 0) {
    uint32_t low = 0;
    uint32_t high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    r.xcr0 = (static_cast<uint64_t>(high) << 32) | low;
  }
  return r;
}

// The tables that need a feature.
enum Tables : uint32_t {
  kAmx = 1,
  kAvx512Vnni = 2,
  kAvxVnni = 4,
  kAvx2 = 8,
  kAvx512 = kAvx512Vnni | kAmx,
  kAll = kAvx512 | kAvxVnni | kAvx2,
};

// One feature: the register that announces it, its bit, the states it needs saved, its tables.
struct Feature {
  std::string_view name;
  uint32_t Registers::*reg;
  int bit;
  uint64_t states;
  Tables tables;
};
constexpr uint64_t kYmm = 0x06;              // xmm, ymm
constexpr uint64_t kZmm = 0xe6;              // xmm, ymm, masks, zmm 0-15 high halves, zmm 16-31
constexpr uint64_t kTiles = kZmm | 0x60000;  // and AMX's tile configuration and data
constexpr Feature kFeatures[] = {
    {"avx2", &Registers::ebx7, 5, kYmm, kAll},
    {"fma", &Registers::ecx1, 12, kYmm, kAll},
    {"f16c", &Registers::ecx1, 29, kYmm, kAll},
    {"avx_vnni", &Registers::eax71, 4, kYmm, kAvxVnni},
    {"avx512f", &Registers::ebx7, 16, kZmm, kAvx512},
    {"avx512dq", &Registers::ebx7, 17, kZmm, kAvx512},
    {"avx512bw", &Registers::ebx7, 30, kZmm, kAvx512},
    {"avx512vl", &Registers::ebx7, 31, kZmm, kAvx512},
    {"avx512vnni", &Registers::ecx7, 11, kZmm, kAvx512},
    {"amx_tile", &Registers::edx7, 24, kTiles, kAmx},
    {"amx_int8", &Registers::edx7, 25, kTiles, kAmx},
};

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
  uint32_t missing = 0;  // Tables
  for (const Feature& f : kFeatures) {
    if (!has(r, f)) missing |= f.tables;
  }
  CpuFeatures cpu;
  cpu.avx2 = (missing & kAvx2) == 0;
  cpu.avxvnni = (missing & kAvxVnni) == 0;
  cpu.avx512vnni = (missing & kAvx512Vnni) == 0;
  cpu.amx = (missing & kAmx) == 0 && may_use_tiles();
  return cpu;
}

std::string_view describe_cpu() noexcept {
  static const Description kDescription = make_description();
  return {kDescription.text.data(), kDescription.size};
}

}  // namespace crumb::kernels
