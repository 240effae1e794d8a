// Collective: the door through which the ranks of one tensor-parallel group meet, each rank on its
// own device thread. Makers: memory of this process (kernels/cpu), NCCL (kernels/cuda).
//
// The ranks call the same operations in the same order with the same shapes. Operations are queued
// in order with the backend's own; what they leave is the same bits on every rank. A rank's row has
// the same bits whatever rows are beside it: a sum goes over the ranks in the same order for every
// element.
//
// A group ends when one of its ranks does: Abort, or the destruction of a Collective, ends the
// operations of all others soon, whatever they wait for, and every later one at once. What those
// leave is undefined; status() says so.
#pragma once

#include "absl/status/status.h"
#include "common/model/backend.h"
#include "common/model/tensor_shard.h"

namespace longhaul {

class Collective {
 public:
  virtual ~Collective() = default;  // ends the group

  virtual TensorShard shard() const = 0;  // any thread

  // data [rows, width] of float32 = the sum of all ranks' data.
  virtual void AllReduce(Tensor data) = 0;

  // On rank 0, out [rows, width] of float32 = the ranks' columns beside each other; rank r brings
  // part [rows, ShareOf(width, r).count]. Other ranks' `out` says the width and is not written.
  virtual void Gather(Tensor out, Tensor part) = 0;

  // Host to host, before a step's first operation: OK once every rank has said OK, else the first
  // rank's error on all of them, which leaves the group whole. Waits for all ranks.
  virtual absl::Status Agree(absl::Status mine) = 0;

  // Any thread. `why` is not OK; the first one stays.
  virtual void Abort(absl::Status why) = 0;
  // OK, or Aborted with the reason once the group has ended. Any thread.
  virtual absl::Status status() const = 0;
};

}  // namespace longhaul
