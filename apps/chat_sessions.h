// Conversations kept from one start to the next: $XDG_STATE_HOME/crumb/sessions/DATE-N.json.
#pragma once
#include <string>

namespace crumb::apps {

// "2026-11-22-1.json" in the folder, the first number that is free. The folder is made if missing
// (mode 0700). Empty if there is no home or the folder cannot be made.
std::string new_session_path();

// The session that was saved last, or the one called `name` ("last" or "2026-11-22-1"). Throws
// Error(kUsage) if there is none, or the name is no session's.
std::string find_session(const std::string& name);

}  // namespace crumb::apps
