#include "router/text/merge_symbols.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "absl/types/span.h"

namespace longhaul {
namespace {

constexpr size_t kShortMax = 40;
constexpr size_t kWindowStart = 2048;
// How far before the end of a window its tokens are tried for a border.
constexpr size_t kMargins[] = {64, 256, 1024};

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

// What a stretch of symbols merges into.
struct Merged {
  size_t begin = 0;  // of the stretch, in the piece
  size_t end = 0;
  std::vector<int32_t> ids;    // of the tokens
  std::vector<size_t> starts;  // of the tokens, in the piece
};

// Merges a stretch: a doubly linked list over an array, with a heap of the possible merges. A merge
// in the heap is stale when the pair at its place has another rank by now.
class StretchMerger {
 public:
  StretchMerger(const MergeTable& merges, absl::Span<const int32_t> symbols)
      : merges_(merges), symbols_(symbols) {}

  Merged Run(size_t begin, size_t end) {
    const uint32_t n = static_cast<uint32_t>(end - begin);
    nodes_.resize(n);
    for (uint32_t i = n; i-- > 0;) {
      nodes_[i].id = symbols_[begin + i];
      nodes_[i].previous = i - 1;  // wraps to kNone at 0
      nodes_[i].next = i + 1 < n ? i + 1 : kNone;
      UpdatePair(i);
    }
    while (!heap_.empty()) {
      const uint64_t entry = heap_.top();
      heap_.pop();
      const uint32_t at = static_cast<uint32_t>(entry);
      if (nodes_[at].pair.rank == static_cast<uint32_t>(entry >> 32)) MergeAt(at);
    }
    Merged merged;
    merged.begin = begin;
    merged.end = end;
    for (uint32_t at = 0; at != kNone; at = nodes_[at].next) {
      merged.ids.push_back(nodes_[at].id);
      merged.starts.push_back(begin + at);
    }
    return merged;
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    int32_t id;
    uint32_t previous;
    uint32_t next;
    Merge pair;  // with the next; no rank when swallowed by a merge
  };

  void MergeAt(uint32_t at) {
    Node& node = nodes_[at];
    node.id = node.pair.id;
    Node& swallowed = nodes_[node.next];
    swallowed.pair = {};
    node.next = swallowed.next;
    if (node.next != kNone) nodes_[node.next].previous = at;
    UpdatePair(at);
    if (node.previous != kNone) UpdatePair(node.previous);
  }

  void UpdatePair(uint32_t at) {
    Node& node = nodes_[at];
    node.pair = node.next == kNone ? Merge{} : merges_.Find(node.id, nodes_[node.next].id);
    // Rank above place: smallest rank first, then leftmost.
    if (node.pair.rank != Merge::kNoRank) {
      heap_.push(static_cast<uint64_t>(node.pair.rank) << 32 | at);
    }
  }

  const MergeTable& merges_;
  const absl::Span<const int32_t> symbols_;
  std::vector<Node> nodes_;
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<uint64_t>> heap_;
};

// Merging a long piece at once walks over megabytes at random. But merges on the two sides of a
// token border do not see each other, which gives two facts: a run of tokens out of a merged text
// is what its own text merges into; and tokens of which every two neighbours are what their text
// merges into are the merged text. So the tokens of a window before some border are final when the
// next window, begun at that border, begins with the same token: all neighbours then come out of
// one window. Where no border near the end holds, the window doubles, in the worst case up to the
// whole piece.
void MergeByWindows(const MergeTable& merges, std::vector<int32_t>* symbols) {
  const std::vector<int32_t> first = std::move(*symbols);
  symbols->clear();
  StretchMerger merger(merges, first);
  size_t window = kWindowStart;
  const auto merge_from = [&](size_t begin) {
    return merger.Run(begin, std::min(begin + window, first.size()));
  };
  Merged merged = merge_from(0);
  while (merged.end < first.size()) {
    bool is_joined = false;
    for (size_t margin : kMargins) {
      const auto border =
          std::upper_bound(merged.starts.begin(), merged.starts.end(), merged.end - margin) - 1;
      if (border <= merged.starts.begin()) break;
      Merged next = merge_from(*border);
      const ptrdiff_t count = border - merged.starts.begin();
      if (next.ids[0] != merged.ids[static_cast<size_t>(count)]) continue;
      symbols->insert(symbols->end(), merged.ids.begin(), merged.ids.begin() + count);
      merged = std::move(next);
      is_joined = true;
      break;
    }
    if (is_joined) continue;
    window *= 2;
    merged = merge_from(merged.begin);
  }
  symbols->insert(symbols->end(), merged.ids.begin(), merged.ids.end());
}

}  // namespace

void MergeSymbols(const MergeTable& merges, std::vector<int32_t>* symbols) {
  if (symbols->size() < 2) return;
  if (symbols->size() <= kShortMax) return MergeShort(merges, symbols);
  MergeByWindows(merges, symbols);
}

}  // namespace longhaul
