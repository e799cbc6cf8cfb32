// Files that are part of the binary; the build writes embedded.cpp from them.
#pragma once
#include <string_view>

namespace crumb::serve {

extern const std::string_view kOpenApi;  // openapi.json
extern const std::string_view kPage;     // page.html

}  // namespace crumb::serve
