#include "common/model/tensor_shard.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

absl::Status CheckEven(absl::string_view what, int64_t count, int width) {
  if (count % width == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the model's ", count, " ", what,
                                                 " cannot be shared evenly by ", width,
                                                 " ranks; choose another --tensor_parallel"));
}

WeightView Rows(const WeightView& weight, ShardRange rows) {
  WeightView part = weight;
  part.data = weight.Row(rows.first);
  part.rows = rows.count;
  return part;
}

absl::StatusOr<WeightView> Columns(absl::string_view name, const WeightView& weight,
                                   ShardRange columns) {
  const int64_t block = BlockElements(weight.dtype);
  if (columns.first % block != 0 || columns.count % block != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "weight ", name, " lies in blocks of ", block, " columns (", DTypeName(weight.dtype),
        "), so ", columns.count, " of its ", weight.cols, " columns cannot go to a rank; choose a ",
        "smaller --tensor_parallel, or a model file of another type"));
  }
  WeightView part = weight;
  part.data += RowBytes(weight.dtype, columns.first);
  part.cols = columns.count;
  part.stride_bytes = weight.stride();
  return part;
}

// Of a vector with a value for each row of a matrix that is cut by rows.
absl::StatusOr<WeightView> Bias(absl::string_view name, const WeightView& bias, ShardRange rows) {
  if (!bias.present()) return bias;
  return Columns(name, bias, rows);
}

ShardRange Scaled(ShardRange heads, int64_t head_dim) {
  return {heads.first * head_dim, heads.count * head_dim};
}

}  // namespace

ShardRange ShareOf(int64_t count, TensorShard shard) {
  const int64_t first = count * shard.rank / shard.width;
  return {first, count * (shard.rank + 1) / shard.width - first};
}

absl::Status CheckKvWidth(int kv_heads, int width) {
  if (width >= 1 && (kv_heads % width == 0 || width % kv_heads == 0)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(kv_heads, " key/value heads cannot be shared ",
                                                 "evenly by ", width, " ranks; choose another ",
                                                 "--tensor_parallel"));
}

ShardRange KvHeadsOf(int kv_heads, TensorShard shard) {
  if (shard.width <= kv_heads) return ShareOf(kv_heads, shard);
  return {int64_t{kv_heads} * shard.rank / shard.width, 1};
}

absl::StatusOr<ModelConfig> ShardConfig(const ModelConfig& config, TensorShard shard) {
  LH_RETURN_IF_ERROR(CheckKvWidth(config.kv_heads, shard.width));
  LH_RETURN_IF_ERROR(CheckEven("heads", config.heads, shard.width));
  LH_RETURN_IF_ERROR(CheckEven("feed-forward columns", config.ffn_hidden, shard.width));
  ModelConfig part = config;
  part.heads = config.heads / shard.width;
  part.kv_heads = static_cast<int>(KvHeadsOf(config.kv_heads, shard).count);
  part.ffn_hidden = config.ffn_hidden / shard.width;
  return part;
}

absl::StatusOr<ModelWeights> ShardWeights(const ModelConfig& config, const ModelWeights& weights,
                                          TensorShard shard) {
  LH_RETURN_IF_ERROR(ShardConfig(config, shard).status());
  const ShardRange q_rows = Scaled(ShareOf(config.heads, shard), config.head_dim);
  const ShardRange kv_rows = Scaled(KvHeadsOf(config.kv_heads, shard), config.head_dim);
  const ShardRange ffn = ShareOf(config.ffn_hidden, shard);
  ModelWeights part = weights;
  part.head = Rows(weights.head, ShareOf(config.vocab, shard));
  for (LayerWeights& layer : part.layers) {
    layer.q = Rows(layer.q, q_rows);
    layer.k = Rows(layer.k, kv_rows);
    layer.v = Rows(layer.v, kv_rows);
    LH_ASSIGN_OR_RETURN(layer.q_bias, Bias("q bias", layer.q_bias, q_rows));
    LH_ASSIGN_OR_RETURN(layer.k_bias, Bias("k bias", layer.k_bias, kv_rows));
    LH_ASSIGN_OR_RETURN(layer.v_bias, Bias("v bias", layer.v_bias, kv_rows));
    LH_ASSIGN_OR_RETURN(layer.attention_out,
                        Columns("attention output", layer.attention_out, q_rows));
    layer.gate = Rows(layer.gate, ffn);
    layer.up = Rows(layer.up, ffn);
    LH_ASSIGN_OR_RETURN(layer.down, Columns("down", layer.down, ffn));
  }
  return part;
}

}  // namespace longhaul
