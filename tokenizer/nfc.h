// Unicode normal form C (UAX #15), as the vocabularies of some families expect it. Linear but for
// the sorting of one run of combining marks; no recursion.
#pragma once
#include <string>
#include <string_view>

namespace crumb::tokenizer {

// False for texts that are surely in NFC: nothing above U+02FF. Bytes that are no UTF-8 are
// ignored.
bool may_change_in_nfc(std::string_view text);

// Bytes that are no UTF-8 stay as they are, and nothing composes over them.
std::string to_nfc(std::string_view text);

}  // namespace crumb::tokenizer
