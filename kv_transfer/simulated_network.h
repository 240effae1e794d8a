// The simulated maker of the Transport door: links between "processes" that share one address space
// and one VirtualLoop. Bytes land step by step over virtual time, so that memory reused too early
// is seen; every choice is drawn from the random source that is handed in, so the same seed gives
// the same trace.
//
// One thread. Everything that is drawn or decided happens in loop tasks and in the calls below.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "common/runtime/loop.h"
#include "kv_transfer/transport.h"

namespace longhaul {

class SimulatedWire;

struct SimulatedNetworkOptions {
  // Each message takes this long to reach the receiver, and up to `jitter_us` more: tags overtake
  // each other.
  int64_t delay_us = 20;
  int64_t jitter_us = 0;
  // What each process can send and receive, shared by all its links.
  int64_t bytes_per_us = 5000;
  // Bytes written at once: between two steps anything may happen.
  int64_t step_bytes = 64 << 10;
  // A cancelled transfer stops at the next multiple of this, as on a real wire.
  int64_t segment_bytes = 4 << 20;
  // Close takes a random time up to this to quiesce; bytes go on landing meanwhile.
  int64_t close_us = 0;

  // Probability that a message is lost. Then both its operations end with Unavailable, or, when
  // `loss_is_told` is false, they stay until somebody closes.
  double loss = 0;
  bool loss_is_told = true;
  // How long after a peer's crash or Close the other end's operations end with Unavailable; -1:
  // never, like shared memory.
  int64_t notice_us = -1;
  // A sender that closes lets its memory be reused while the receiver still reads it: the receive
  // ends with OK and wrong bytes, as over shared memory. Otherwise it stays outstanding.
  bool sender_close_tears = false;

  // Probability that a byte of a step is flipped on the way, unnoticed.
  double corruption = 0;

  // Mutants: bugs that tools/sim must catch. With them bytes are written into memory that the
  // receiver was told is free; it must still be mapped.
  bool mutant_close_without_quiesce =
      false;  // Close of the receiver: done at once, the bytes go on landing
  bool mutant_cancel_without_quiesce = false;  // Cancel of a receive: the same
  bool mutant_late_send_writes =
      false;  // a send whose receive was cancelled or closed writes its old pieces
};

class SimulatedNetwork {
 public:
  struct Counters {
    int64_t messages_delivered = 0;
    int64_t messages_lost = 0;
    int64_t messages_dropped = 0;  // late or beyond the bound of unexpected ones
    int64_t bytes_written = 0;
    int64_t bytes_corrupted = 0;
    // Bugs of the processes: pieces that did not stay as they were until `done`; receives posted
    // into the memory of another one under way.
    int64_t sends_changed = 0;
    int64_t receives_overlapping = 0;
    int64_t bytes_written_after_done = 0;  // by mutants only
  };

  // `loop` outlives the network, the network its transports and links.
  SimulatedNetwork(Loop* loop, SimulatedNetworkOptions options,
                   absl::AnyInvocable<uint64_t()> random);
  ~SimulatedNetwork();

  // The transport of a process. After Crash a second call with the same name is the restarted
  // process, which knows no link of the old one.
  std::unique_ptr<Transport> MakeTransport(const std::string& process);

  // From now on nothing reads or writes the memory of this process. Its links' operations end when
  // its owner destroys the links; their peers notice or not (notice_us).
  void Crash(const std::string& process);
  // A stopped process (SIGSTOP) sends and receives nothing until Continue; everything waits,
  // nothing is lost.
  void Stop(const std::string& process);
  void Continue(const std::string& process);
  // Cuts two processes off from each other until Heal; what is under way waits.
  void Partition(const std::string& a, const std::string& b);
  void Heal(const std::string& a, const std::string& b);
  // No loss and no corruption from now on.
  void StopFaults();
  // Closes every link of the process, as an administrator's hand would.
  void CloseLinks(const std::string& process);

  const Counters& counters() const { return counters_; }

 private:
  friend class SimulatedWire;
  friend class SimulatedTransport;

  struct Process {
    std::string name;
    bool crashed = false;
    bool stopped = false;
    int64_t busy_until_us = 0;
    std::map<const std::byte*, int64_t>
        receiving;  // runs of bytes that receives under way may write
  };

  // Uniform in [0, bound]; draws nothing when bound is 0.
  int64_t Draw(int64_t bound);
  bool DrawChance(double probability);
  bool DrawLoss();
  bool DrawCorruption();
  bool Blocked(const Process& a, const Process& b) const;
  void ResumeWires();
  std::vector<std::shared_ptr<SimulatedWire>> LiveWires();

  Loop* const loop_;
  SimulatedNetworkOptions options_;
  absl::AnyInvocable<uint64_t()> random_;
  Counters counters_;
  absl::flat_hash_map<std::string, std::shared_ptr<Process>> processes_;
  absl::flat_hash_set<std::pair<std::string, std::string>> partitions_;  // names in order
  // By address, in order: the order in which wires are resumed must not depend on pointers.
  std::vector<std::pair<uint64_t, std::weak_ptr<SimulatedWire>>> wires_;
  uint64_t next_wire_ = 1;
};

}  // namespace longhaul
