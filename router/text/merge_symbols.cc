#include "router/text/merge_symbols.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace longhaul {
namespace {

constexpr size_t kShortMax = 40;

// n <= kShortMax. pairs[i] is how symbols i and i + 1 merge.
void MergeShort(const MergeTable& merges, std::vector<int32_t>* symbols) {
  int32_t* const ids = symbols->data();
  size_t n = symbols->size();
  Merge pairs[kShortMax];
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = merges.Find(ids[i], ids[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == Merge::kNoRank) break;
    ids[best] = pairs[best].id;
    std::copy(ids + best + 2, ids + n, ids + best + 1);
    std::copy(pairs + best + 1, pairs + n - 1, pairs + best);
    --n;
    if (best > 0) pairs[best - 1] = merges.Find(ids[best - 1], ids[best]);
    if (best + 1 < n) pairs[best] = merges.Find(ids[best], ids[best + 1]);
  }
  symbols->resize(n);
}

// A doubly linked list over the array, with a heap of the possible merges. A merge in the heap is
// stale when the pair at its place has another rank by now.
class LongMerger {
 public:
  LongMerger(const MergeTable& merges, std::vector<int32_t>* symbols)
      : merges_(merges), ids_(*symbols), nodes_(symbols->size()) {}

  void Run() {
    const uint32_t n = static_cast<uint32_t>(ids_.size());
    std::vector<uint64_t> start;
    start.reserve(n);
    for (uint32_t i = 0; i < n; ++i) {
      nodes_[i].previous = i - 1;  // wraps to kNone at 0
      nodes_[i].next = i + 1 < n ? i + 1 : kNone;
      if (i + 1 == n) continue;
      nodes_[i].pair = merges_.Find(ids_[i], ids_[i + 1]);
      if (nodes_[i].pair.rank != Merge::kNoRank) start.push_back(EntryOf(i));
    }
    heap_ = Heap(std::greater<uint64_t>(), std::move(start));
    while (!heap_.empty()) {
      const uint64_t entry = heap_.top();
      heap_.pop();
      const uint32_t at = static_cast<uint32_t>(entry);
      if (nodes_[at].pair.rank == static_cast<uint32_t>(entry >> 32)) MergeAt(at);
    }
    size_t left = 0;
    for (uint32_t at = 0; at != kNone; at = nodes_[at].next) ids_[left++] = ids_[at];
    ids_.resize(left);
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    uint32_t previous;
    uint32_t next;
    Merge pair;  // with the next; no rank when swallowed by a merge
  };
  using Heap = std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<uint64_t>>;

  // Orders by rank, then from the left.
  uint64_t EntryOf(uint32_t at) const {
    return static_cast<uint64_t>(nodes_[at].pair.rank) << 32 | at;
  }

  void MergeAt(uint32_t at) {
    Node& node = nodes_[at];
    ids_[at] = node.pair.id;
    Node& swallowed = nodes_[node.next];
    swallowed.pair = {};
    node.next = swallowed.next;
    if (node.next != kNone) nodes_[node.next].previous = at;
    UpdatePair(at);
    if (node.previous != kNone) UpdatePair(node.previous);
  }

  void UpdatePair(uint32_t at) {
    Node& node = nodes_[at];
    node.pair = node.next == kNone ? Merge{} : merges_.Find(ids_[at], ids_[node.next]);
    if (node.pair.rank != Merge::kNoRank) heap_.push(EntryOf(at));
  }

  const MergeTable& merges_;
  std::vector<int32_t>& ids_;
  std::vector<Node> nodes_;
  Heap heap_;
};

}  // namespace

void MergeSymbols(const MergeTable& merges, std::vector<int32_t>* symbols) {
  if (symbols->size() < 2) return;
  if (symbols->size() <= kShortMax) return MergeShort(merges, symbols);
  LongMerger(merges, symbols).Run();
}

}  // namespace longhaul
