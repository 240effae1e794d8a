// UcxLink: what both ends of a UCX link have in common: the worker, the callbacks on their way, and
// the order in which a link ends. Internal to the UCX maker.
#pragma once

#include <ucp/api/ucp.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kv_transfer/ucx/ucx_transport.h"

namespace longhaul {

// Active-message ids. A message crosses as segments, none longer than both ends allow and each an
// active message with this header: it says where the bytes belong, so either side may cut and order
// them as it likes.
enum UcxMessageId : unsigned {
  kSegmentMessage = 0,
  kAbandonMessage = 1,
  kPathMessage = 2,
  kGreetingMessage = 3,
};
struct UcxSegmentHeader {
  uint64_t link_id = 0;
  uint64_t tag = 0;
  uint64_t message_bytes = 0;
  uint64_t offset_bytes = 0;
  uint64_t network = 0;  // 1: the sender reaches us over the network, 0: by shared memory
};

absl::Status UcxError(ucs_status_t status, const std::string& what);

// Names to UCX the memory that an operation reads or writes, so that it need not find out.
void SetMemoryKind(MemoryKind kind, ucp_request_param_t& params);

// The transport's buffers for segments whose pieces do not lie in one run, each of the longest
// segment. They live as long as the transport: freeing device memory would halt the device. The
// last given back is the next given out, because it is still in the cache.
class UcxBuffers {
 public:
  UcxBuffers(KvMemory* memory, int64_t bytes) : memory_(memory), bytes_(bytes) {}
  using Buffer = std::unique_ptr<DeviceBuffer>;
  absl::StatusOr<Buffer> Take();
  void GiveBack(Buffer buffer) { free_.push_back(std::move(buffer)); }
  int64_t buffer_bytes() const { return bytes_; }

 private:
  KvMemory* const memory_;
  const int64_t bytes_;
  std::vector<Buffer> free_;
};

// The buffers that one end of a link may have out at a time: `out_max`, fewer where they are large.
class UcxStaging {
 public:
  UcxStaging(UcxBuffers* buffers, int out_max);
  using Buffer = UcxBuffers::Buffer;
  // Null when all are out.
  absl::StatusOr<Buffer> Take();
  void GiveBack(Buffer buffer);

 private:
  UcxBuffers* const buffers_;
  const int out_max_;
  int out_ = 0;
};

// A ucp worker and what must live as long as it does.
struct UcxWorker {
  UcxWorker(ucp_worker_h handle, int epoll_fd);
  ~UcxWorker();  // destroys the worker
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  const ucp_worker_h handle;
  const int epoll_fd;
  int event_fd = -1;
  ucs_status_t endpoint_error = UCS_OK;  // set by UCX when it notices that the peer is gone
  // What UCX must finish before the worker may be destroyed; looked at by Finished.
  ucs_status_ptr_t pending = nullptr;

  // A sender's first message over the network, which carries nothing; false until the receiver has
  // taken it, which proves that its answer to our connection is on its way. UCX 1.13 aborts a
  // receiver that has to drop that answer, so the connection stays until then.
  UcxSegmentHeader greeting_header;
  char greeting = 0;
  bool greeted = true;

  // Whether UCX has nothing of its own under way to the peer at this instant; asks it again each
  // time.
  bool Finished();
};

class UcxLink : public Link {
 public:
  UcxLink(UcxTransport* transport, std::unique_ptr<UcxWorker> worker, uint64_t link_id);

  void Close() final;

  // Drives the worker and runs the callbacks that are due; true when there was something to do.
  bool Poll();
  // Asks UCX to wake us; false when there is work already.
  bool Arm();
  // Whether operations have been started that have not ended.
  virtual bool outstanding() const = 0;

 protected:
  ~UcxLink() override;  // after Shutdown

  // To be called first by the destructor of a subclass.
  void Shutdown();
  bool closed() const { return worker_ == nullptr; }
  ucp_worker_h worker() const { return worker_->handle; }
  // Ends the link by itself, with this reason for all its operations; from Pump only.
  void Fail(absl::Status reason) { End(reason); }
  void Finish(TransferDone done, absl::Status status);

  // After each round of progress, outside of UCX's callbacks.
  virtual void Pump() = 0;

  enum class Rest {
    kDestroyNow,  // the worker may still hold operations of ours: destroying it ends them
    kBury,  // it holds none, but UCX has messages of its own under way, which 1.13 cannot abandon
            // over TCP
  };
  // Takes back from UCX what it holds of ours, as far as that goes without the peer.
  virtual Rest Quiesce() = 0;
  // The worker is gone or buried: nothing can come any more. Ends every operation.
  virtual void EndAll(const absl::Status& status) = 0;

  UcxTransport::Drops& drops() { return transport_->drops_; }
  const UcxOptions& options() const { return transport_->options_; }
  KvMemory& memory() const { return *transport_->options_.memory; }
  UcxBuffers* buffers() { return transport_->buffers_.get(); }

  UcxTransport* const transport_;
  std::unique_ptr<UcxWorker> worker_;  // null: closed
  const uint64_t link_id_;

 private:
  void End(const absl::Status& reason);
  bool RunReady();

  std::deque<std::pair<TransferDone, absl::Status>> ready_;
};

}  // namespace longhaul
