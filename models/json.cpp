#include "models/json.h"

#include <memory>
#include <utility>
#include <vector>

namespace {

// Ends a value and gives its memory back.
template <class T>
void free_value(T* value) {
  if (value == nullptr) return;
  std::allocator<T> allocator;
  std::allocator_traits<std::allocator<T>>::destroy(allocator, value);
  allocator.deallocate(value, 1);
}

}  // namespace

template <>
void nlohmann::ordered_json::json_value::destroy(value_t type) {
  thread_local int depth = 0;  // values around this one that are ending
  if (depth >= crumb::models::kPlainJsonDepth) {
    // The library's way: the children of every level are moved out before their parent ends.
    std::vector<ordered_json> stack;
    const auto take_children = [&stack](value_t of, json_value value) {
      if (of == value_t::array && value.array != nullptr) {
        for (auto& child : *value.array) stack.push_back(std::move(child));
        value.array->clear();
      } else if (of == value_t::object && value.object != nullptr) {
        for (auto& member : *value.object) stack.push_back(std::move(member.second));
        value.object->clear();
      }
    };
    take_children(type, *this);
    while (!stack.empty()) {
      ordered_json value = std::move(stack.back());
      stack.pop_back();
      take_children(value.m_type, value.m_value);
    }
  }
  ++depth;
  switch (type) {
    case value_t::object:
      free_value(object);
      break;
    case value_t::array:
      free_value(array);
      break;
    case value_t::string:
      free_value(string);
      break;
    case value_t::binary:
      free_value(binary);
      break;
    default:
      break;
  }
  --depth;
}
