// Test suites parameterised over every backend compiled in; those this CPU cannot run are skipped
// with a message instead of being left out silently.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/backend.h"

namespace crumb::test {

class OverBackends : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    backend_ = kernels::find_backend(GetParam());
    if (backend_ == nullptr) GTEST_SKIP() << "this CPU cannot run " << GetParam();
  }
  const kernels::Backend& backend() const { return *backend_; }
  static const kernels::Backend& scalar() { return *kernels::find_backend("scalar"); }

 private:
  const kernels::Backend* backend_ = nullptr;
};

inline std::vector<std::string> backend_names() {
  const auto names = kernels::compiled_backends();
  return {names.begin(), names.end()};
}
inline std::string backend_label(const testing::TestParamInfo<std::string>& param) {
  return param.param;
}

}  // namespace crumb::test
