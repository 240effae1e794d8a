// WireTransport: a Transport between processes. It drives itself, as the Poller of the transfer
// thread's loop, and counts what came to nobody.
//
// Threads: made anywhere, then used on one ThreadLoop only, which has it as its Poller. The
// transport outlives the loop; its links are gone before.
#pragma once

#include <cstdint>

#include "common/runtime/thread_loop.h"
#include "kv_transfer/transport.h"

namespace longhaul {

class WireTransport : public Transport, public Poller {
 public:
  struct Drops {
    int64_t late = 0;        // parts of messages whose Receive had ended
    int64_t unexpected = 0;  // messages beyond the bound of waiting ones
    int64_t foreign = 0;     // what is of another link, or malformed
  };
  const Drops& drops() const { return drops_; }

 protected:
  Drops drops_;
};

}  // namespace longhaul
