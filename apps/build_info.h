// What was built, filled in by CMake (build_info.cpp.in).
#pragma once
#include <string_view>

namespace crumb::apps {

struct BuildInfo {
  std::string_view version, commit, compiler, build_type, flags;
  std::string_view libraries;  // "fmt 9.1.0;hwloc 2.9.0": what it was compiled with
};
extern const BuildInfo kBuildInfo;

}  // namespace crumb::apps
