// Which tables exist is CMake's knowledge (CRUMB_HAVE_*), which may run is the CPU's.
#include "kernels/backend.h"

#include <array>
#include <cstddef>

#include "kernels/cpu_features.h"

namespace crumb::kernels {

extern const Backend kScalar;
#ifdef CRUMB_HAVE_AVX2
extern const Backend kAvx2;
#endif
#ifdef CRUMB_HAVE_AVXVNNI
extern const Backend kAvxVnni;
#endif
#ifdef CRUMB_HAVE_AMX
extern const Backend kAmx;
#endif
#ifdef CRUMB_HAVE_AVX512VNNI
extern const Backend kAvx512Vnni;
#endif
#ifdef CRUMB_HAVE_NEON
extern const Backend kNeon;
extern const Backend kNeonDotprod;
extern const Backend kNeonI8mm;
#endif

namespace {

struct Entry {
  std::string_view name;
  const Backend* backend;
  bool CpuFeatures::*needs;  // null: every CPU
};

// Best first.
constexpr Entry kEntries[] = {
#ifdef CRUMB_HAVE_AMX
    {"amx", &kAmx, &CpuFeatures::amx},
#endif
#ifdef CRUMB_HAVE_AVX512VNNI
    {"avx512vnni", &kAvx512Vnni, &CpuFeatures::avx512vnni},
#endif
#ifdef CRUMB_HAVE_AVXVNNI
    {"avxvnni", &kAvxVnni, &CpuFeatures::avxvnni},
#endif
#ifdef CRUMB_HAVE_AVX2
    {"avx2", &kAvx2, &CpuFeatures::avx2},
#endif
#ifdef CRUMB_HAVE_NEON
    {"neon_i8mm", &kNeonI8mm, &CpuFeatures::neon_i8mm},
    {"neon_dotprod", &kNeonDotprod, &CpuFeatures::neon_dotprod},
    {"neon", &kNeon, &CpuFeatures::neon},
#endif
    {"scalar", &kScalar, nullptr},
};
constexpr std::size_t kCount = std::size(kEntries);

struct Names {
  std::array<std::string_view, kCount> list;
};
constexpr Names make_names() {
  Names names;
  for (std::size_t i = 0; i < kCount; ++i) names.list[i] = kEntries[i].name;
  return names;
}
constexpr Names kNames = make_names();

struct Runnable {
  std::array<const Backend*, kCount> list = {};
  std::size_t count = 0;
};
Runnable make_runnable() noexcept {
  Runnable r;
  const CpuFeatures cpu = detect_cpu();
  for (const Entry& entry : kEntries) {
    if (entry.needs == nullptr || cpu.*entry.needs) r.list[r.count++] = entry.backend;
  }
  return r;
}

}  // namespace

std::span<const Backend* const> backends() noexcept {
  static const Runnable kRunnable = make_runnable();
  return {kRunnable.list.data(), kRunnable.count};
}

std::span<const std::string_view> compiled_backends() noexcept { return kNames.list; }

const Backend* find_backend(std::string_view name) noexcept {
  for (const Backend* backend : backends()) {
    if (backend->name == name) return backend;
  }
  return nullptr;
}

std::string_view cpu_features() noexcept { return describe_cpu(); }

}  // namespace crumb::kernels
