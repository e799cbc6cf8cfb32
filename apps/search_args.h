// What the searches of `crumb search` share, and the searches themselves.
#pragma once
#include <string>

#include "apps/verbs.h"

namespace crumb::apps {

int search_emq(Context& context);
int search_apq(Context& context);
int search_qvlm(Context& context);

// Throws IoError if `path` cannot be written when the work is done: its folder is missing or not
// writable. Nothing for an empty path.
void require_writable(const std::string& path);

}  // namespace crumb::apps
