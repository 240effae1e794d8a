// In-process maker of the Transport door: both ends live in one process and the bytes are copied
// once, from the sender's pieces to the receiver's, by whichever side comes second. Used by the
// standalone launcher and by tests.
//
// Threads: the two ends may live on one Loop or on two; each end's methods are called on its own
// Loop. A link's mutex is held while a message is copied, which is how Close of either end waits
// for the message that is moving.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/model/kv_memory.h"
#include "common/runtime/loop.h"
#include "kv_transfer/transport.h"

namespace longhaul {

// What the transports of one process share: which links wait for their sender. Any thread.
class InProcessNetwork;
std::shared_ptr<InProcessNetwork> MakeInProcessNetwork();

class InProcessTransport final : public Transport {
 public:
  // `loop` and `memory` outlive the transport and its links. A message is copied by the receiving
  // end's memory, which must reach the sender's pieces.
  InProcessTransport(Loop* loop, std::shared_ptr<InProcessNetwork> network,
                     KvMemory* memory = &HostKvMemory());

  std::string name() const override { return "in-process"; }
  absl::StatusOr<Accepted> Accept() override;
  // FailedPrecondition when the address was given to another sender already.
  absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address) override;

 private:
  Loop* const loop_;
  const std::shared_ptr<InProcessNetwork> network_;
  KvMemory* const memory_;
};

}  // namespace longhaul
