// DigestQueue: the digests of messages, computed beside the wire. On a device each takes a launch
// and a wait, whatever its size: what comes while one batch is there makes the next batch, and
// nobody waits. Where digests are ready at once, `done` is called from inside Add.
//
// Lives on the transfer Loop, as a shared object: it looks after a batch from tasks of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/types/span.h"
#include "common/model/kv_memory.h"
#include "common/runtime/loop.h"
#include "kv_transfer/transport.h"

namespace longhaul {

class DigestQueue : public std::enable_shared_from_this<DigestQueue> {
 public:
  using Done = absl::AnyInvocable<void(uint64_t digest)>;

  // Both outlive it and its tasks.
  DigestQueue(Loop* loop, KvMemory* memory) : loop_(loop), memory_(memory) {}

  // MessageDigest of the pieces, which stay as they are until `done`. Called in the order of Add.
  void Add(absl::Span<const SendPiece> pieces, int64_t slab_bytes, Done done);

 private:
  struct Message {
    std::vector<const std::byte*> slabs;
    int64_t slab_bytes = 0;
    Done done;
  };

  void Begin();
  void Look();

  Loop* const loop_;
  KvMemory* const memory_;
  std::vector<Message> waiting_;
  std::vector<Message> under_way_;  // all with slabs of one size
  std::unique_ptr<SlabDigests> batch_;
};

}  // namespace longhaul
