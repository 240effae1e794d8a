// AddedTokenMatcher: finds the tokens that are cut out of a text before it is split and merged,
// like
// "<|im_start|>". Leftmost first, longest among those that start at the same place. Immutable; any
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace longhaul {

class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin;
    size_t bytes;  // 0: nothing found
    int32_t id;
  };

  // Texts are not empty; the first id of a text stays.
  explicit AddedTokenMatcher(absl::Span<const std::pair<absl::string_view, int32_t>> tokens);

  // The first match at or after `from`. Looks at each byte once unless it can begin a token, and
  // then at no more bytes than the longest token has.
  Match FindFrom(absl::string_view text, size_t from) const;

 private:
  struct Node {
    int32_t id = -1;     // of the token that ends here
    int32_t child = -1;  // first of a list, in any order
    int32_t sibling = -1;
    char byte = 0;
  };

  int32_t ChildOf(int32_t node, char byte) const;

  std::vector<Node> nodes_;         // a trie; [0] is the root
  std::array<int32_t, 256> first_;  // the root's child by byte, -1: no token begins with it
};

}  // namespace longhaul
