// ControlPlane: the simulated gRPC between processes of one VirtualLoop. Streams keep their order,
// take their time, and break when a process dies, as gRPC's do; beyond that, prefill events may
// come twice or again in a later stream, which the hand-off promises to survive.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/engine/prefill_client.h"
#include "common/engine/worker_client.h"
#include "common/runtime/loop.h"
#include "tools/sim/dice.h"
#include "tools/sim/scenario.h"

namespace longhaul {

class ControlPlane {
 public:
  // All outlive the control plane. `trace` hears of every message that is delivered.
  ControlPlane(Loop* loop, Dice* dice, const Scenario& scenario,
               std::function<void(const char*, uint64_t)> trace)
      : loop_(loop), dice_(dice), scenario_(scenario), trace_(std::move(trace)) {}

  // The process called `name` begins to serve, until Down; what reaches it runs on its `loop`, the
  // same in every life. One of the two workers is null.
  void Up(const std::string& name, Loop* loop, WorkerClient* decode, PrefillEndpoint* prefill);
  // Every stream from or to it breaks.
  void Down(const std::string& name);
  void StopFaults() { faults_ = false; }

  // The clients that live in the process `from` ("router" never dies).
  std::unique_ptr<WorkerClient> DecodeClient(const std::string& from, const std::string& to);
  std::unique_ptr<StatusClient> PrefillStatusClient(const std::string& from, const std::string& to);
  std::unique_ptr<PrefillClient> MakePrefillClient(const std::string& from);

 private:
  struct Process {
    int64_t life = 0;  // counts starts; a stream belongs to one life of each end
    bool up = false;
    Loop* loop = nullptr;
    WorkerClient* decode = nullptr;
    PrefillEndpoint* prefill = nullptr;
  };
  template <typename Event, typename FarCall>
  class Stream;
  template <typename Event>
  class Call;
  class PrefillStreamCall;
  class Decode;
  class PrefillStatus;
  class Prefills;

  Loop* LoopOf(const std::string& name);
  int64_t DrawDelayUs();

  Loop* const loop_;
  Dice* const dice_;
  const Scenario& scenario_;
  const std::function<void(const char*, uint64_t)> trace_;
  bool faults_ = true;
  std::map<std::string, Process> processes_;
  std::map<std::string, std::vector<PrefillEvent>>
      past_events_;  // by the process that received them
};

}  // namespace longhaul
