// nlohmann's JSON, whose ordered values end without taking memory. What makes or ends JSON includes
// this instead of the library's header (tests/structure/json_include.sh); .cpp files only.
//
// The library (3.11) lists the children of an array or object on a stack of its own before it frees
// them, so that no depth can overflow the thread's. That stack is allocated, in a destructor:
// without memory for it the process ends. Here values end as containers end their elements, down to
// kPlainJsonDepth levels; what lies deeper, which no bounded parser makes, as in the library.
#pragma once
#include <nlohmann/json.hpp>

namespace crumb::models {
inline constexpr int kPlainJsonDepth = 1024;
}

// A null pointer is taken too: a value whose container could not be allocated has one.
template <>
void nlohmann::ordered_json::json_value::destroy(value_t type);
