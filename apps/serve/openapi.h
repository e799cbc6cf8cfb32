// /openapi.json with the numbers of the model that is served.
#pragma once
#include <cstdint>
#include <string>

#include "apps/serve/served_model.h"

namespace crumb::serve {

std::string openapi_text(const ServedModel& model);
// A regular expression for the decimal numbers 0..last.
std::string number_pattern(int64_t last);

}  // namespace crumb::serve
