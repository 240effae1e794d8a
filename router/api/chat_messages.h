// The messages of a chat request, checked and brought into the one form that chat templates read.
#pragma once

#include <boost/json.hpp>

#include "absl/status/statusor.h"

namespace longhaul {

// `value` is the request's `messages`. See CompletionRequest::messages for the result; its strings
// live in the default storage, not in that of `value`. Errors name the path, as in
// messages[2].content[0].type. `json_depth_max` bounds arguments of tool calls, which are JSON
// inside a JSON string.
absl::StatusOr<boost::json::array> ReadChatMessages(const boost::json::value& value,
                                                    int json_depth_max);

}  // namespace longhaul
