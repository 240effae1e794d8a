// TensorShard: one rank's part of a model that `width` ranks compute together. Shoeybi et al.,
// "Megatron-LM", 2019: q, k, v, gate, up and the output head are cut by rows, attention's output
// and down by columns, so that a layer's ranks meet twice, each time to add up what they bring to
// the residual stream; norms and the embedding are on every rank. Pure; any thread.
//
// A rank has neighbouring heads. Where there are more ranks than key/value heads, neighbouring
// ranks hold the same one.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/model/config.h"
#include "common/model/weights.h"

namespace longhaul {

inline constexpr int kRanksMax = 64;

struct TensorShard {
  int rank = 0;
  int width = 1;
};

// A run of neighbours: heads, rows, columns.
struct ShardRange {
  int64_t first = 0;
  int64_t count = 0;
  int64_t end() const { return first + count; }
  friend bool operator==(const ShardRange&, const ShardRange&) = default;
};

// The rank's share of `count` neighbours; shares differ by at most one.
ShardRange ShareOf(int64_t count, TensorShard shard);

// Whether `width` ranks can hold `kv_heads` evenly. Error: InvalidArgument with both numbers.
absl::Status CheckKvWidth(int kv_heads, int width);
// The key/value heads that the rank holds, for a width that CheckKvWidth takes.
ShardRange KvHeadsOf(int kv_heads, TensorShard shard);

// The configuration of a rank's part: its heads and its feed-forward width; the embedding and the
// residual stream are whole. Error: InvalidArgument with the numbers when the model cannot be cut
// into so many parts.
absl::StatusOr<ModelConfig> ShardConfig(const ModelConfig& config, TensorShard shard);

// Views of the rank's part of `weights`, which are those of the whole `config`; `head` is its share
// of the vocabulary's rows. Errors: those of ShardConfig; InvalidArgument when a cut would fall
// inside a block of a quantised weight.
absl::StatusOr<ModelWeights> ShardWeights(const ModelConfig& config, const ModelWeights& weights,
                                          TensorShard shard);

}  // namespace longhaul
