// What the kernels of a step need to know of its batch, in device memory: planned on the host,
// uploaded in one copy. Addresses stay the same from step to step (until a step needs more room),
// so that a recorded graph finds the next step's tables. Device thread.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/model/backend.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/decode_schedule.h"
#include "kernels/cuda/prefill_attention.h"

namespace longhaul {

class StepTables {
 public:
  // `rows`: of the largest step that needs no more memory than this begins with.
  StepTables(CudaDevice& device, int64_t rows) : device_(device), capacity_{rows, rows, rows, 0} {}

  // Queues the upload of `batch`. The tables' memory is taken here. Error: ResourceExhausted.
  absl::Status Upload(const Batch& batch, const ModelConfig& config, const KvPool& pool);

  // Of the step uploaded last. In device memory:
  const int32_t* tokens() const { return At<int32_t>(offsets_.tokens); }        // [rows]
  const int32_t* positions() const { return At<int32_t>(offsets_.positions); }  // [rows]
  const int64_t* slots() const { return At<int64_t>(offsets_.slots); }          // [rows]
  float2* angles() const { return reinterpret_cast<float2*>(angles_->data()); }
  // Block ids of all sequences, one table after the other.
  const int32_t* block_tables() const { return At<int32_t>(offsets_.block_tables); }
  const PrefillAttentionItem* prefill_items() const {
    return At<PrefillAttentionItem>(offsets_.prefill_items);
  }
  const DecodeItem* decode_items() const { return At<DecodeItem>(offsets_.decode_items); }
  const int32_t* decode_item_count() const { return At<int32_t>(offsets_.decode_item_count); }
  // On the host:
  int32_t prefill_item_count() const { return static_cast<int32_t>(prefill_.items.size()); }
  int64_t prefill_keys() const { return prefill_.keys; }
  int32_t decode_slots() const { return schedule_.slots; }

 private:
  // Where the parts lie in the upload; those whose size changes most from step to step are last, so
  // that a small step is a small copy.
  struct Offsets {
    int64_t decode_item_count = 0, slots = 0, tokens = 0, positions = 0;
    int64_t prefill_items = 0, decode_items = 0, block_tables = 0;
  };
  struct Capacity {
    int64_t rows = 0, items = 0, blocks = 0, pairs = 0;
  };
  // The host's side: the next step is written while the last one's copy may be under way.
  struct Staging {
    CudaPinnedBuffer memory;
    DeviceEvent copied = 0;
  };

  template <typename T>
  T* At(int64_t offset) const {
    return reinterpret_cast<T*>(memory_->data() + offset);
  }
  void Plan(const Batch& batch, const KvPool& pool);
  absl::Status Reserve(int64_t rows, const ModelConfig& config);
  void Fill(const Batch& batch, const KvPool& pool, std::byte* to);

  CudaDevice& device_;
  Capacity capacity_;
  Offsets offsets_;
  std::unique_ptr<DeviceBuffer> memory_, angles_;
  std::array<Staging, 2> staging_;
  uint64_t uploads_ = 0;
  // The step's plan.
  std::vector<int32_t> table_begins_;  // by sequence
  std::vector<int32_t> block_tables_;
  PrefillAttentionPlan prefill_;
  std::vector<DecodeRow> decode_rows_;
  DecodeSchedule schedule_;
};

}  // namespace longhaul
