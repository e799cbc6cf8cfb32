// `crumb eval compare`: several models or reports side by side.
#pragma once
#include "apps/verbs.h"

namespace crumb::apps {

int eval_compare(Context& context);

}  // namespace crumb::apps
