// MemorySanitizer does not see what the standard library's binary writes. Two things that the
// readers look at are told to it here, by wrappers that msan.sh links in: the texts of exceptions,
// and the links of trees' nodes.
#include <sanitizer/msan_interface.h>

#include <map>
#include <stdexcept>
#include <string>

namespace {

using Error = std::runtime_error;
using Node = std::_Rb_tree_node_base;

void text_is_written(Error* error) {
  __msan_unpoison(error, sizeof(Error));
  __msan_unpoison_string(error->what());
}

}  // namespace

extern "C" {

// std::runtime_error's constructors, for whole objects (C1) and bases (C2).
void real_whole(Error*, const std::string&) __asm__(
    "__real__ZNSt13runtime_errorC1ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE");
void real_base(Error*, const std::string&) __asm__(
    "__real__ZNSt13runtime_errorC2ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE");
void real_whole_chars(Error*, const char*) __asm__("__real__ZNSt13runtime_errorC1EPKc");
void real_base_chars(Error*, const char*) __asm__("__real__ZNSt13runtime_errorC2EPKc");
void wrap_whole(Error*, const std::string&) __asm__(
    "__wrap__ZNSt13runtime_errorC1ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE");
void wrap_base(Error*, const std::string&) __asm__(
    "__wrap__ZNSt13runtime_errorC2ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE");
void wrap_whole_chars(Error*, const char*) __asm__("__wrap__ZNSt13runtime_errorC1EPKc");
void wrap_base_chars(Error*, const char*) __asm__("__wrap__ZNSt13runtime_errorC2EPKc");

void wrap_whole(Error* error, const std::string& text) {
  real_whole(error, text);
  text_is_written(error);
}
void wrap_base(Error* error, const std::string& text) {
  real_base(error, text);
  text_is_written(error);
}
void wrap_whole_chars(Error* error, const char* text) {
  real_whole_chars(error, text);
  text_is_written(error);
}
void wrap_base_chars(Error* error, const char* text) {
  real_base_chars(error, text);
  text_is_written(error);
}

// std::_Rb_tree_insert_and_rebalance
void real_insert(bool, Node*, Node*, Node&) __asm__(
    "__real__ZSt29_Rb_tree_insert_and_rebalancebPSt18_Rb_tree_node_baseS0_RS_");
void wrap_insert(bool, Node*, Node*, Node&) __asm__(
    "__wrap__ZSt29_Rb_tree_insert_and_rebalancebPSt18_Rb_tree_node_baseS0_RS_");
void wrap_insert(bool left, Node* node, Node* parent, Node& header) {
  real_insert(left, node, parent, header);
  __msan_unpoison(node, sizeof *node);
}

}  // extern "C"
