// The worker processes of a simulation: production workers over the simulated wire, with
// KV-sensitive executors. A process can be killed and started again; its old memory stays mapped,
// so that a late write is seen, not a crash.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/engine/kv_stub_executor.h"
#include "common/runtime/loop.h"
#include "decode_worker/decode_worker.h"
#include "kv_transfer/simulated_network.h"
#include "kv_transfer/transfer_engine.h"
#include "prefill_worker/prefill_worker.h"
#include "tools/sim/control_plane.h"
#include "tools/sim/dice.h"
#include "tools/sim/process_loop.h"
#include "tools/sim/scenario.h"

namespace longhaul {

inline constexpr int32_t kSimVocab = 5000;
inline constexpr int64_t kSimContextTokens = 2048;
KvLayout SimLayout();
CostModel SimCost();

// What every process needs of the world.
struct SimWorld {
  Loop* loop = nullptr;
  Dice* dice = nullptr;
  const Scenario* scenario = nullptr;
  SimulatedNetwork* network = nullptr;
  ControlPlane* control = nullptr;
};

// The KV pools of `width` ranks with garbage in them, as in a long-lived process.
class SimMemory {
 public:
  SimMemory(int64_t blocks, int width, Dice& dice);
  const ShardedKvPool& pool() const { return pool_; }

 private:
  std::vector<std::vector<std::byte>> bytes_;
  ShardedKvPool pool_;
};

class SimProcess {
 public:
  SimProcess(std::string name, SimWorld world)
      : name_(std::move(name)), world_(world), loop_(world.loop) {}
  virtual ~SimProcess() = default;

  const std::string& name() const { return name_; }
  void Start();
  void Kill();
  bool running() const { return running_; }
  // Its loop stands still, while its connections and its wire live.
  void Hang() { loop_.Hang(); }
  void GoOn() { loop_.GoOn(); }

  // Empty when nothing is under way and no block is live; else what is left.
  virtual std::string Unquiet() const = 0;

 protected:
  virtual void Build() = 0;
  virtual void TearDown() = 0;
  std::string UnquietBlocks(const BlockManager& blocks) const;

  const std::string name_;
  const SimWorld world_;
  ProcessLoop loop_;
  // What memory and links of earlier lives are made of.
  std::vector<std::unique_ptr<SimMemory>> memories_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<KvStubExecutor> executor_;

 private:
  bool running_ = false;
};

class SimPrefill final : public SimProcess {
 public:
  using SimProcess::SimProcess;
  ~SimPrefill() override { TearDown(); }
  const PrefillWorker* worker() const { return worker_.get(); }
  std::string Unquiet() const override;

 protected:
  void Build() override;
  void TearDown() override;

 private:
  std::unique_ptr<PrefillWorker> worker_;
};

class SimDecode final : public SimProcess {
 public:
  using SimProcess::SimProcess;
  ~SimDecode() override { TearDown(); }
  const DecodeWorker* worker() const { return worker_.get(); }
  std::string Unquiet() const override;

 protected:
  void Build() override;
  void TearDown() override;

 private:
  std::unique_ptr<PrefillClient> prefill_client_;
  std::unique_ptr<DecodeWorker> worker_;
};

}  // namespace longhaul
