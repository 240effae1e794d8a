// EndedTags: what the receiving end of a link remembers of tags whose Receive ended without its
// message, so that the message is dropped when it still comes. Bounded: the oldest are forgotten; a
// forgotten one's message waits like any unexpected one until that bound drops it.
#pragma once

#include <cstddef>
#include <deque>

#include "absl/container/flat_hash_set.h"
#include "kv_transfer/transport.h"

namespace longhaul {

class EndedTags {
 public:
  static constexpr size_t kTagsMax = 65536;

  void Add(TransferTag tag) {
    if (!tags_.insert(tag).second) return;
    order_.push_back(tag);
    if (order_.size() > kTagsMax) {
      tags_.erase(order_.front());
      order_.pop_front();
    }
  }
  bool Contains(TransferTag tag) const { return tags_.contains(tag); }

 private:
  absl::flat_hash_set<TransferTag> tags_;
  std::deque<TransferTag> order_;
};

}  // namespace longhaul
