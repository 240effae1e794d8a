// LH_CHECK(condition, "what, with numbers"): states what only a bug of ours could break. On in
// production: a process that continues with broken state would hand wrong tokens to somebody.
#pragma once

#include "absl/strings/string_view.h"

namespace longhaul {

// Logs the failed condition with its place and ends the process with abort().
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              absl::string_view message);

}  // namespace longhaul

#define LH_CHECK(condition, message)                                      \
  do {                                                                    \
    if (!(condition)) [[unlikely]] {                                      \
      ::longhaul::CheckFailed(__FILE__, __LINE__, #condition, (message)); \
    }                                                                     \
  } while (false)
