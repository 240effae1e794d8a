#include "kv_transfer/ucx/ucx_link.h"

#include <sys/epoll.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

constexpr int64_t kStagingBytesMax = 64 << 20;  // of one end of a link

}  // namespace

absl::Status UcxError(ucs_status_t status, const std::string& what) {
  const std::string message = absl::StrCat(what, ": ", ucs_status_string(status));
  return status == UCS_ERR_CANCELED ? absl::CancelledError(message)
                                    : absl::UnavailableError(message);
}

void SetMemoryKind(MemoryKind kind, ucp_request_param_t& params) {
  params.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  params.memory_type = kind == MemoryKind::kCuda ? UCS_MEMORY_TYPE_CUDA : UCS_MEMORY_TYPE_HOST;
}

absl::StatusOr<UcxBuffers::Buffer> UcxBuffers::Take() {
  if (free_.empty()) return memory_->Allocate(bytes_);
  Buffer buffer = std::move(free_.back());
  free_.pop_back();
  return buffer;
}

UcxStaging::UcxStaging(UcxBuffers* buffers, int out_max)
    : buffers_(buffers),
      out_max_(static_cast<int>(
          std::clamp<int64_t>(kStagingBytesMax / buffers->buffer_bytes(), 2, out_max))) {}

absl::StatusOr<UcxStaging::Buffer> UcxStaging::Take() {
  if (out_ == out_max_) return Buffer();
  absl::StatusOr<Buffer> buffer = buffers_->Take();
  if (buffer.ok()) ++out_;
  return buffer;
}

void UcxStaging::GiveBack(Buffer buffer) {
  --out_;
  buffers_->GiveBack(std::move(buffer));
}

UcxWorker::UcxWorker(ucp_worker_h worker, int epoll) : handle(worker), epoll_fd(epoll) {
  const ucs_status_t status = ucp_worker_get_efd(handle, &event_fd);
  LH_CHECK(status == UCS_OK, ucs_status_string(status));
  epoll_event event{};
  event.events = EPOLLIN;
  LH_CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) == 0,
           "epoll_ctl failed: raise the limit on epoll watches");
}

UcxWorker::~UcxWorker() {
  epoll_ctl(epoll_fd, EPOLL_CTL_DEL, event_fd, nullptr);
  ucp_worker_destroy(handle);
}

bool UcxWorker::Finished() {
  if (!greeted) return false;
  if (UCS_PTR_IS_PTR(pending)) {
    if (ucp_request_check_status(pending) == UCS_INPROGRESS) return false;
    ucp_request_free(pending);
  }
  // The progress that ended the last one may have begun something new, such as the answer to a peer
  // that connects.
  ucp_request_param_t params{};
  pending = ucp_worker_flush_nbx(handle, &params);
  return !UCS_PTR_IS_PTR(pending);
}

UcxLink::UcxLink(UcxTransport* transport, std::unique_ptr<UcxWorker> worker, uint64_t link_id)
    : transport_(transport), worker_(std::move(worker)), link_id_(link_id) {
  transport_->links_.push_back(this);
}

UcxLink::~UcxLink() {
  LH_CHECK(closed() && ready_.empty(), "a link's destructor must shut it down first");
  // The transport may be in the middle of polling: leave a gap, Poll closes it.
  std::replace(transport_->links_.begin(), transport_->links_.end(), this,
               static_cast<UcxLink*>(nullptr));
}

void UcxLink::Shutdown() {
  Close();
  while (RunReady()) {
  }
}

void UcxLink::Close() { End(absl::CancelledError("the link was closed")); }

void UcxLink::End(const absl::Status& reason) {
  if (closed()) return;
  const Rest rest = Quiesce();
  if (rest == Rest::kBury) {
    transport_->Bury(std::move(worker_));
  } else {
    worker_.reset();
  }
  EndAll(reason);
}

void UcxLink::Finish(TransferDone done, absl::Status status) {
  ready_.emplace_back(std::move(done), std::move(status));
}

bool UcxLink::RunReady() {
  if (ready_.empty()) return false;
  std::deque<std::pair<TransferDone, absl::Status>> ready;
  ready.swap(ready_);
  for (auto& [done, status] : ready) std::move(done)(std::move(status));
  return true;
}

bool UcxLink::Poll() {
  bool worked = false;
  if (!closed()) {
    worked = ucp_worker_progress(worker()) != 0;
    Pump();
  }
  return RunReady() || worked;
}

bool UcxLink::Arm() {
  if (!ready_.empty()) return false;
  return closed() || ucp_worker_arm(worker()) == UCS_OK;
}

}  // namespace longhaul
