// What a sampler may choose from.
#pragma once
#include <cstdint>
#include <vector>

namespace crumb {

class TokenFilter {
 public:
  virtual ~TokenFilter() = default;
  virtual bool allows(int32_t id) = 0;
  // All allowed tokens, if they are few enough to be found quickly; else false.
  virtual bool list(std::vector<int32_t>& ids) = 0;
};

}  // namespace crumb
