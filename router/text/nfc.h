// Unicode normalisation form C (UAX #15) as the `tokenizers` library does it. Any thread.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace longhaul {

// Returns `text` in NFC: `text` itself when it is already (nearly all text is; ASCII costs a scan),
// otherwise a view of `*storage`. Linear in the text except for sorting runs of combining marks,
// which is O(n log n). Invalid bytes stay as they are and combine with nothing.
//
// Marks that are younger than the tables of the library that models are trained with (Unicode 9)
// also stay as they are, in their place: what counts is that a model sees the tokens it knows.
absl::string_view NormalizeNfc(absl::string_view text, std::string* storage);

}  // namespace longhaul
