// Python's methods of str that templates call.
#pragma once

#include "absl/strings/string_view.h"
#include "router/text/jinja_runtime.h"

namespace longhaul::jinja {

using MethodFunction = Value (*)(Runtime& runtime, const Value& self, Arguments& arguments);

// Null when str has no such method, or none that this engine knows.
MethodFunction FindTextMethod(absl::string_view name);

}  // namespace longhaul::jinja
