// Jinja's filters and tests, with the semantics that Hugging Face's templates rely on.
#pragma once

#include "absl/strings/string_view.h"
#include "router/text/jinja_runtime.h"

namespace longhaul::jinja {

using FilterFunction = Value (*)(Runtime& runtime, const Value& input, Arguments& arguments);
using TestFunction = bool (*)(Runtime& runtime, const Value& input, Arguments& arguments);

// Null when there is none of that name. FindFilter looks in all three tables.
FilterFunction FindFilter(absl::string_view name);
FilterFunction FindTextFilter(absl::string_view name);
FilterFunction FindSequenceFilter(absl::string_view name);
FilterFunction FindSelectionFilter(absl::string_view name);
TestFunction FindTest(absl::string_view name);

// What a filter's `attribute` argument names: "a.b" or an index.
Value LookUpPath(Runtime& runtime, const Value& value, const Value& path);

// Global functions and macros' names: range, dict, namespace, raise_exception, strftime_now, ...
// Undefined when there is none.
Value FindGlobal(absl::string_view name);

}  // namespace longhaul::jinja
