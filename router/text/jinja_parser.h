// Makes the tree of a template. Refuses what this engine does not have (extends, include, import,
// recursive loops, ...) with the line and the name; an unknown filter or test is an error only when
// it is used, as templates guard such uses with an if.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "router/text/jinja_ast.h"

namespace longhaul::jinja {

absl::StatusOr<Body> ParseTemplate(absl::string_view source);

}  // namespace longhaul::jinja
