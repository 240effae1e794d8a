// Errors that the world can cause are absl::Status values; these macros pass them up. What only a
// bug of ours can cause is a LH_CHECK (check.h).
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define LH_CONCAT_INNER(a, b) a##b
#define LH_CONCAT(a, b) LH_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr` (an absl::Status) is not OK.
#define LH_RETURN_IF_ERROR(expr)                            \
  do {                                                      \
    if (absl::Status lh_status = (expr); !lh_status.ok()) { \
      return lh_status;                                     \
    }                                                       \
  } while (false)

// LH_ASSIGN_OR_RETURN(auto x, F()): declares or assigns x from a StatusOr, or returns its status.
#define LH_ASSIGN_OR_RETURN(lhs, expr) \
  LH_ASSIGN_OR_RETURN_IMPL(LH_CONCAT(lh_or_, __LINE__), lhs, expr)
#define LH_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return std::move(tmp).status(); \
  lhs = *std::move(tmp)
