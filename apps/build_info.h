// What was built, filled in by CMake (build_info.cpp.in).
#pragma once
#include <string_view>

namespace crumb::apps {

struct BuildInfo {
  std::string_view version, commit, compiler, build_type, flags;
};
extern const BuildInfo kBuildInfo;

}  // namespace crumb::apps
