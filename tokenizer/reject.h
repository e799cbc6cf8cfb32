// The one error of inconsistent tokenizer data.
#pragma once
#include <stdexcept>
#include <string>

namespace crumb::tokenizer {

// Throws std::invalid_argument: what (where: expected ..., found ...).
[[noreturn]] inline void reject(const std::string& what, const std::string& where,
                                const std::string& expected, const std::string& found) {
  throw std::invalid_argument("tokenizer: " + what + " (" + where + ": expected " + expected +
                              ", found " + found + ")");
}

}  // namespace crumb::tokenizer
