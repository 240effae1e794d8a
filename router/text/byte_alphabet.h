// GPT-2's printable byte alphabet: vocabularies of byte-level BPE write each of the 256 bytes as a
// printable character, itself where it is one and otherwise from U+0100 on. Pure, any thread.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace longhaul {

// The bytes that `text` writes in the alphabet; nothing when a character is not of the alphabet.
std::optional<std::string> BytesOfAlphabet(absl::string_view text);

}  // namespace longhaul
