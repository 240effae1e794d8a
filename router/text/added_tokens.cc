#include "router/text/added_tokens.h"

namespace longhaul {

AddedTokenMatcher::AddedTokenMatcher(
    absl::Span<const std::pair<absl::string_view, int32_t>> tokens) {
  first_.fill(-1);
  nodes_.emplace_back();
  for (const auto& [text, id] : tokens) {
    int32_t at = 0;
    for (char byte : text) {
      int32_t child = ChildOf(at, byte);
      if (child < 0) {
        child = static_cast<int32_t>(nodes_.size());
        nodes_.push_back({.sibling = nodes_[at].child, .byte = byte});
        nodes_[at].child = child;
        if (at == 0) first_[static_cast<uint8_t>(byte)] = child;
      }
      at = child;
    }
    if (nodes_[at].id < 0) nodes_[at].id = id;
  }
}

int32_t AddedTokenMatcher::ChildOf(int32_t node, char byte) const {
  if (node == 0) return first_[static_cast<uint8_t>(byte)];
  int32_t child = nodes_[node].child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

AddedTokenMatcher::Match AddedTokenMatcher::FindFrom(absl::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    int32_t at = first_[static_cast<uint8_t>(text[begin])];
    if (at < 0) continue;
    Match longest = {begin, 0, -1};
    for (size_t past = begin + 1; at >= 0; ++past) {
      if (nodes_[at].id >= 0) longest = {begin, past - begin, nodes_[at].id};
      if (past == text.size()) break;
      at = ChildOf(at, text[past]);
    }
    if (longest.bytes > 0) return longest;
  }
  return {text.size(), 0, -1};
}

}  // namespace longhaul
