// AttentionPlan: one layer's attention as independent tasks: (sequence, kv head, query tile) for
// prefill, (sequence, kv head, key tile) for decode, whose parts are merged afterwards. Owned by
// the backend; Bind and Plan* on the device thread, Run* and Merge on any worker.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/backend.h"
#include "kernels/cpu/kernel_table.h"

namespace longhaul {

class AttentionPlan {
 public:
  // What the next plan is about; the arguments must live until its last task has run.
  void Bind(const CpuKernels& kernels, const Batch& batch, const ModelConfig& config,
            const KvPool& pool, int layer, Tensor qkv, Tensor out);

  void PlanPrefill();
  void RunPrefill(int64_t task, std::byte* scratch) const;

  void PlanDecode();
  int64_t decode_scratch_bytes() const { return int64_t{4} * group_ * kDecodeKeyTile; }
  void RunDecode(int64_t task, std::byte* scratch);
  // Merges the parts of decode row `row` (0 is the first decode row) in the order of their keys.
  void MergeDecode(int64_t row);

  int64_t tasks() const { return static_cast<int64_t>(tasks_.size()); }

 private:
  struct Task {
    const BatchSequence* sequence;
    int kv_head;
    int64_t first;  // prefill: first query of the tile, from the sequence's row; decode: first key
  };
  KvHead HeadOf(const Task& task) const;

  const CpuKernels* kernels_ = nullptr;
  const Batch* batch_ = nullptr;
  const ModelConfig* config_ = nullptr;
  const KvPool* pool_ = nullptr;
  int layer_ = 0;
  int group_ = 1;  // query heads of a kv head
  float scale_ = 1.0f;
  Tensor qkv_, out_;
  std::vector<Task> tasks_;
  std::vector<int64_t> row_task_;  // [decode rows + 1]: where each row's tasks begin
  std::vector<float> sums_;        // [tasks][group][head_dim]
  std::vector<float> weight_;      // [tasks][group]
  std::vector<float> score_max_;   // [tasks][group]
};

}  // namespace longhaul
