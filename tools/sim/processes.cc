#include "tools/sim/processes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/engine/fingerprint.h"

namespace longhaul {

KvLayout SimLayout() {
  return {.layers = 2, .kv_heads = 2, .head_dim = 8, .block_tokens = 4, .dtype = DType::kBF16};
}

CostModel SimCost() { return CostModel::FromCoefficients({200, 20, 0.01, 300, 20, 0.05}); }

SimMemory::SimMemory(int64_t blocks, int width, Dice& dice)
    : pool_(SimLayout(), blocks, std::vector<std::byte*>(width)) {
  const uint64_t pattern = dice.Bits();
  for (int rank = 0; rank < width; ++rank) {
    std::vector<std::byte>& bytes =
        bytes_.emplace_back(blocks * pool_.Rank(rank).layout.block_bytes());
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>(pattern >> (i % 8 * 8));
    pool_.ranks[rank] = bytes.data();
  }
}

void SimProcess::Start() {
  transports_.push_back(world_.network->MakeTransport(name_));
  engine_ = std::make_unique<TransferEngine>(&loop_, world_.loop, transports_.back().get());
  Build();
  running_ = true;
}

void SimProcess::Kill() {
  world_.control->Down(name_);
  world_.network->Crash(name_);
  TearDown();
  executor_.reset();
  engine_.reset();
  loop_.GoOn();  // what waited finds nothing
  running_ = false;
}

std::string SimProcess::UnquietBlocks(const BlockManager& blocks) const {
  if (blocks.live() == 0 && blocks.free() + blocks.cached() == blocks.total()) return "";
  return absl::StrCat(name_, " has ", blocks.live(), " live blocks");
}

void SimPrefill::Build() {
  memories_.push_back(std::make_unique<SimMemory>(world_.scenario->prefill_blocks,
                                                  world_.scenario->prefill_width, *world_.dice));
  executor_ =
      std::make_unique<KvStubExecutor>(&loop_, memories_.back()->pool(), kSimVocab, SimCost());
  PrefillWorkerOptions options;
  options.name = name_;
  options.incarnation = world_.dice->Bits() | 1;
  options.fingerprint = MakeFingerprint(ModelConfig{}, Hash128{}, SimLayout());
  options.context_tokens_max = kSimContextTokens;
  options.fence_us = 20'000;
  options.scheduler.block_tokens = SimLayout().block_tokens;
  options.scheduler.chunk_tokens_max = 32;
  worker_ = std::make_unique<PrefillWorker>(options, &loop_, executor_.get(), engine_.get(),
                                            memories_.back()->pool());
  world_.control->Up(name_, &loop_, nullptr, worker_.get());
}

void SimPrefill::TearDown() { worker_.reset(); }

std::string SimPrefill::Unquiet() const {
  if (!worker_->idle()) return absl::StrCat(name_, " has prompts that never end");
  return UnquietBlocks(worker_->blocks());
}

void SimDecode::Build() {
  memories_.push_back(std::make_unique<SimMemory>(world_.scenario->decode_blocks,
                                                  world_.scenario->decode_width, *world_.dice));
  executor_ =
      std::make_unique<KvStubExecutor>(&loop_, memories_.back()->pool(), kSimVocab, SimCost());
  DecodeWorkerOptions options;
  options.name = name_;
  options.incarnation = world_.dice->Bits() | 1;
  options.fingerprint = MakeFingerprint(ModelConfig{}, Hash128{}, SimLayout());
  options.vocab = kSimVocab;
  options.local_prefill_tokens_max = 4;
  options.scheduler.context_tokens_max = kSimContextTokens;
  options.scheduler.prefill.chunk_tokens_max = 16;
  options.hand_off.chunk_tokens = world_.scenario->chunk_tokens;
  options.hand_off.window_chunks = world_.scenario->window_chunks;
  options.hand_off.quiesce_us = 10'000;
  options.hand_off.stall_us = 100'000;
  options.hand_off.link_bytes_per_us_min = 0.5;
  options.hand_off.heartbeat_us = 20'000;
  prefill_client_ = world_.control->MakePrefillClient(name_);
  worker_ = std::make_unique<DecodeWorker>(options, &loop_, executor_.get(), engine_.get(),
                                           prefill_client_.get(), memories_.back()->pool());
  world_.control->Up(name_, &loop_, worker_.get(), nullptr);
}

void SimDecode::TearDown() {
  worker_.reset();
  prefill_client_.reset();
}

std::string SimDecode::Unquiet() const {
  if (!worker_->idle()) return absl::StrCat(name_, " has requests or hand-offs that never end");
  return UnquietBlocks(worker_->blocks());
}

}  // namespace longhaul
