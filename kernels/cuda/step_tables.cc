#include "kernels/cuda/step_tables.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

constexpr int64_t kAlignmentBytes = 128;

int64_t Grown(int64_t capacity, int64_t needed) {
  return needed <= capacity ? capacity : std::max(needed, 2 * capacity);
}

}  // namespace

absl::Status StepTables::Upload(const Batch& batch, const ModelConfig& config, const KvPool& pool) {
  Plan(batch, pool);
  LH_RETURN_IF_ERROR(Reserve(batch.rows(), config));
  Staging& staging = staging_[uploads_++ % staging_.size()];
  device_.Wait(staging.copied);
  Fill(batch, pool, staging.memory.data());
  const int64_t bytes =
      offsets_.block_tables + static_cast<int64_t>(block_tables_.size() * sizeof(int32_t));
  device_.Copy(memory_->data(), staging.memory.data(), bytes);
  staging.copied = device_.Record();
  return absl::OkStatus();
}

void StepTables::Plan(const Batch& batch, const KvPool& pool) {
  table_begins_.clear();
  block_tables_.clear();
  decode_rows_.clear();
  // The parts of one sequence (its chunk, its decode rows) share their block table.
  struct Table {
    int32_t begin = 0;
    size_t blocks = 0;
    int64_t settled = 0;  // what the step stores begins here
  };
  absl::flat_hash_map<const BlockId*, Table> tables;
  for (const BatchSequence& sequence : batch.sequences) {
    const Table fresh = {static_cast<int32_t>(block_tables_.size()), sequence.blocks.size(),
                         sequence.position};
    const auto [found, added] = tables.try_emplace(sequence.blocks.data(), fresh);
    Table& table = found->second;
    LH_CHECK(table.blocks == fresh.blocks, "parts of a sequence with different block tables");
    table.settled = std::min(table.settled, sequence.position);
    table_begins_.push_back(table.begin);
    if (added) {
      block_tables_.insert(block_tables_.end(), sequence.blocks.begin(), sequence.blocks.end());
    }
  }
  for (const BatchSequence& sequence : batch.sequences) {
    if (sequence.phase != Phase::kDecode) continue;
    const Table& table = tables[sequence.blocks.data()];
    decode_rows_.push_back({.keys = static_cast<int32_t>(sequence.position + 1),
                            .table = table.begin,
                            .settled = static_cast<int32_t>(table.settled)});
  }
  for (const BlockId block : block_tables_) {
    LH_CHECK(block >= 0 && block < pool.blocks,
             absl::StrCat("block ", block, " of a pool of ", pool.blocks));
  }
  prefill_ = PlanPrefillAttention(batch, table_begins_);
  PlanDecode(decode_rows_, &schedule_);
}

absl::Status StepTables::Reserve(int64_t rows, const ModelConfig& config) {
  const auto items = static_cast<int64_t>(std::max(schedule_.items.size(), prefill_.items.size()));
  const auto blocks = static_cast<int64_t>(block_tables_.size());
  const int64_t pairs = config.head_dim / 2;
  // angles_ is taken last: without it an earlier attempt failed.
  if (angles_ != nullptr && rows <= capacity_.rows && items <= capacity_.items &&
      blocks <= capacity_.blocks && pairs <= capacity_.pairs) {
    return absl::OkStatus();
  }
  const Capacity next = {Grown(capacity_.rows, rows), Grown(capacity_.items, items),
                         Grown(capacity_.blocks, blocks), std::max(capacity_.pairs, pairs)};
  int64_t bytes = 0;
  const auto place = [&](int64_t count, int64_t each) {
    const int64_t offset = bytes;
    bytes += (count * each + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
    return offset;
  };
  offsets_.decode_item_count = place(1, sizeof(int32_t));
  offsets_.slots = place(next.rows, sizeof(int64_t));
  offsets_.tokens = place(next.rows, sizeof(int32_t));
  offsets_.positions = place(next.rows, sizeof(int32_t));
  offsets_.prefill_items = place(next.items, sizeof(PrefillAttentionItem));
  offsets_.decode_items = place(next.items, sizeof(DecodeItem));
  offsets_.block_tables = place(next.blocks, sizeof(int32_t));
  memory_ = nullptr;
  angles_ = nullptr;
  for (Staging& staging : staging_) {
    device_.Wait(staging.copied);
    LH_ASSIGN_OR_RETURN(staging.memory, CudaPinnedBuffer::Allocate(bytes));
    std::memset(staging.memory.data(), 0, bytes);
  }
  LH_ASSIGN_OR_RETURN(memory_, device_.Allocate(bytes));
  LH_ASSIGN_OR_RETURN(
      angles_, device_.Allocate(next.rows * next.pairs * static_cast<int64_t>(sizeof(float2))));
  capacity_ = next;
  return absl::OkStatus();
}

void StepTables::Fill(const Batch& batch, const KvPool& pool, std::byte* to) {
  const auto copy = [&](int64_t offset, const auto& values) {
    if (!values.empty()) std::memcpy(to + offset, values.data(), values.size() * sizeof(values[0]));
  };
  const auto count = static_cast<int32_t>(schedule_.items.size());
  std::memcpy(to + offsets_.decode_item_count, &count, sizeof(count));
  copy(offsets_.tokens, batch.tokens);
  copy(offsets_.prefill_items, prefill_.items);
  copy(offsets_.decode_items, schedule_.items);
  copy(offsets_.block_tables, block_tables_);
  auto* positions = reinterpret_cast<int32_t*>(to + offsets_.positions);
  auto* slots = reinterpret_cast<int64_t*>(to + offsets_.slots);
  const int64_t block_tokens = pool.layout.block_tokens;
  for (const BatchSequence& sequence : batch.sequences) {
    for (int64_t i = 0; i < sequence.tokens; ++i) {
      const int64_t position = sequence.position + i;
      positions[sequence.row + i] = static_cast<int32_t>(position);
      slots[sequence.row + i] =
          sequence.blocks[position / block_tokens] * block_tokens + position % block_tokens;
    }
  }
}

}  // namespace longhaul
