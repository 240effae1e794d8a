// A JSON object that holds a long array of token ids, read without a JSON value for each id: a
// prompt of 32K ids is 200 KB of text and would become 800 KB of values, which takes ten times as
// long.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

struct JsonWithIds {
  boost::json::value object;
  std::vector<int32_t> ids;  // empty: `object` has the field as the client sent it
};

// What ParseJsonObject makes of `body`. If the value of the top-level field `name` is an array of
// plain ids in [0, vocabulary_tokens) (0: any int32), it comes as `ids`, and the field is an empty
// array. Of anything else nothing is taken out, so that whoever reads the field says what is wrong.
absl::StatusOr<JsonWithIds> ParseJsonWithIds(absl::string_view body, absl::string_view name,
                                             int64_t vocabulary_tokens, int depth_max,
                                             boost::json::storage_ptr storage);

}  // namespace longhaul
