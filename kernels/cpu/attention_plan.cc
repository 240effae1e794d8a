#include "kernels/cpu/attention_plan.h"

#include <algorithm>
#include <cmath>

namespace longhaul {

void AttentionPlan::Bind(const CpuKernels& kernels, const Batch& batch, const ModelConfig& config,
                         const KvPool& pool, int layer, Tensor qkv, Tensor out) {
  kernels_ = &kernels;
  batch_ = &batch;
  config_ = &config;
  pool_ = &pool;
  layer_ = layer;
  group_ = config.heads / config.kv_heads;
  scale_ = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  qkv_ = qkv;
  out_ = out;
  tasks_.clear();
}

KvHead AttentionPlan::HeadOf(const Task& task) const {
  const KvLayout& layout = pool_->layout;
  const int64_t head_bytes = int64_t{layout.block_tokens} * layout.head_dim * 2;
  KvHead head;
  head.layer = pool_->data + layout.SlabOffset(pool_->blocks, layer_, 0);
  head.slab_bytes = layout.slab_bytes();
  head.blocks = task.sequence->blocks.data();
  head.block_tokens = layout.block_tokens;
  head.head_dim = layout.head_dim;
  head.key_bytes = task.kv_head * head_bytes;
  head.value_bytes = (layout.kv_heads + task.kv_head) * head_bytes;
  return head;
}

void AttentionPlan::PlanPrefill() {
  for (const BatchSequence& sequence : batch_->sequences) {
    if (sequence.phase != Phase::kPrefill) continue;
    for (int64_t first = 0; first < sequence.tokens; first += kPrefillQueryTile) {
      for (int head = 0; head < config_->kv_heads; ++head) {
        tasks_.push_back({&sequence, head, first});
      }
    }
  }
  // The dearest first, so that the threads end together.
  std::stable_sort(tasks_.begin(), tasks_.end(), [](const Task& a, const Task& b) {
    return a.sequence->position + a.first > b.sequence->position + b.first;
  });
}

void AttentionPlan::RunPrefill(int64_t task, std::byte* scratch) const {
  const Task& t = tasks_[task];
  const int64_t row = t.sequence->row + t.first;
  const int64_t column = int64_t{t.kv_head} * group_ * config_->head_dim;
  PrefillAttention prefill;
  prefill.kv = HeadOf(t);
  prefill.queries = qkv_.data + row * qkv_.width + column;
  prefill.query_stride = qkv_.width;
  prefill.out = out_.data + row * out_.width + column;
  prefill.out_stride = out_.width;
  prefill.group = group_;
  prefill.position = t.sequence->position + t.first;
  prefill.queries_count =
      static_cast<int>(std::min<int64_t>(kPrefillQueryTile, t.sequence->tokens - t.first));
  prefill.scale = scale_;
  prefill.scratch = scratch;
  kernels_->prefill_attention(prefill);
}

void AttentionPlan::PlanDecode() {
  row_task_.clear();
  for (const BatchSequence& sequence : batch_->sequences) {
    if (sequence.phase != Phase::kDecode) continue;
    row_task_.push_back(tasks());
    for (int head = 0; head < config_->kv_heads; ++head) {
      for (int64_t key = 0; key <= sequence.position; key += kDecodeKeyTile) {
        tasks_.push_back({&sequence, head, key});
      }
    }
  }
  row_task_.push_back(tasks());
  sums_.resize(tasks() * group_ * config_->head_dim);
  weight_.resize(tasks() * group_);
  score_max_.resize(tasks() * group_);
}

void AttentionPlan::RunDecode(int64_t task, std::byte* scratch) {
  const Task& t = tasks_[task];
  DecodeAttention decode;
  decode.kv = HeadOf(t);
  decode.queries =
      qkv_.data + t.sequence->row * qkv_.width + int64_t{t.kv_head} * group_ * config_->head_dim;
  decode.group = group_;
  decode.first = t.first;
  decode.end = std::min<int64_t>(t.first + kDecodeKeyTile, t.sequence->position + 1);
  decode.scale = scale_;
  decode.sums = sums_.data() + task * group_ * config_->head_dim;
  decode.weight = weight_.data() + task * group_;
  decode.score_max = score_max_.data() + task * group_;
  decode.scratch = reinterpret_cast<float*>(scratch);
  kernels_->decode_attention(decode);
}

void AttentionPlan::MergeDecode(int64_t row) {
  const int dim = config_->head_dim;
  const int64_t parts = (row_task_[row + 1] - row_task_[row]) / config_->kv_heads;
  for (int head = 0; head < config_->heads; ++head) {
    const int64_t first = row_task_[row] + head / group_ * parts;
    const int member = head % group_;
    float max = score_max_[first * group_ + member];
    for (int64_t part = first + 1; part < first + parts; ++part) {
      max = std::max(max, score_max_[part * group_ + member]);
    }
    float* out = out_.data + (batch_->prefill_rows + row) * out_.width + head * dim;
    std::fill_n(out, dim, 0.0f);
    float total = 0.0f;
    for (int64_t part = first; part < first + parts; ++part) {
      const int64_t index = part * group_ + member;
      const float keep = std::exp2(score_max_[index] - max);
      total += keep * weight_[index];
      const float* sums = sums_.data() + index * dim;
      for (int d = 0; d < dim; ++d) out[d] += keep * sums[d];
    }
    const float inverse = 1.0f / total;
    for (int d = 0; d < dim; ++d) out[d] *= inverse;
  }
}

}  // namespace longhaul
