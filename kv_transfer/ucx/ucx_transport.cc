#include "kv_transfer/ucx/ucx_transport.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "kv_transfer/ucx/ucx_link.h"
#include "kv_transfer/ucx/ucx_receiver.h"
#include "kv_transfer/ucx/ucx_sender.h"

namespace longhaul {
namespace {

// UCX refuses to wait while a send finds no room at the peer. When the peer is stopped that lasts:
// after so many refusals in a row the loop sleeps this long between two looks instead of burning
// its core.
constexpr int kFruitlessArmsMax = 256;
constexpr int64_t kRetryNs = 500'000;
// While operations are outstanding the loop looks this often even when UCX does not wake it: its
// events for a connection that is being made have been seen to get lost on a loaded machine, which
// would stop the link for good.
constexpr int64_t kLookNs = 20'000'000;

// Short enough that a cancelled transfer stops soon (a few ms even over TCP), long enough to cost
// no bandwidth.
constexpr int64_t kHostSegmentBytesMax = 512 << 10;
// A message over cuda_ipc costs some 10 us of the two processors, in which the device moves this
// much.
constexpr int64_t kCudaSegmentBytesMax = 16 << 20;
constexpr char kCudaTransports[] = ",cuda_copy,cuda_ipc";

absl::Status Modify(ucp_config_t* config, const char* name, const std::string& value) {
  const ucs_status_t status = ucp_config_modify(config, name, value.c_str());
  if (status == UCS_OK) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("UCX refuses ", name, "=", value, ": ", ucs_status_string(status)));
}

// The options with every choice made.
UcxOptions Completed(UcxOptions options) {
  const bool cuda = options.memory->kind() == MemoryKind::kCuda;
  if (cuda) options.transports += kCudaTransports;
  if (options.segment_bytes_max == 0) {
    options.segment_bytes_max = cuda ? kCudaSegmentBytesMax : kHostSegmentBytesMax;
  }
  return options;
}

absl::Status CheckKnowsCuda(ucp_context* context) {
  ucp_context_attr_t attributes{};
  attributes.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES;
  const ucs_status_t status = ucp_context_query(context, &attributes);
  if (status != UCS_OK) return UcxError(status, "UCX cannot tell which memory it knows");
  if ((attributes.memory_types & UCS_BIT(UCS_MEMORY_TYPE_CUDA)) != 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "this UCX (", ucp_get_version_string(),
      ") does not reach a GPU's memory, so KV there cannot ",
      "leave this process: build with the UCX of PyPI's libucx-cu13 (cmake -DLONGHAUL_UCX_DIR), "
      "and check that its libuct_cuda.so is found beside libuct.so, or use --backend=cpu"));
}

absl::StatusOr<ucp_context*> MakeContext(const UcxOptions& options) {
  ucs_global_opts_set_value("LOG_LEVEL", options.log_level.c_str());
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) return UcxError(status, "UCX cannot read its configuration");
  absl::Status modified = Modify(config, "TLS", options.transports);
  // The receiver reads. With remote writes a peer that was stopped could write into blocks given
  // away long ago.
  if (modified.ok()) modified = Modify(config, "RNDV_SCHEME", "get_zcopy");
  // Poll every transport from the start: UCX otherwise lets a thread of its own wait for the first
  // message of a connection, and a wake-up that is lost there is lost for good.
  if (modified.ok()) modified = Modify(config, "ADAPTIVE_PROGRESS", "n");
  // UCX 1.13 may end a zero-copy send over TCP twice, and abort the process, when the peer goes
  // away under it. Copies in large segments are also a quarter faster on loopback than zero copy.
  if (modified.ok()) modified = Modify(config, "ZCOPY_THRESH", "inf");
  // Where it sees no NVLink UCX would not let a device read another process's memory, not even on
  // the same device, and stage everything through the host without a word.
  ucp_config_modify(config, "CUDA_IPC_ENABLE_GET_ZCOPY", "on");
  // An allocation that takes more than a tenth of the device, as a pool of KV does, UCX would
  // register run by run, not once and whole.
  ucp_config_modify(config, "CUDA_COPY_REG_WHOLE_ALLOC", "on");
  ucp_config_modify(config, "CUDA_COPY_MAX_REG_RATIO", "1.0");
  // 1.13 knows a transport's own options without its prefix, later ones with it; the wrong name is
  // refused or ignored.
  for (const char* name : {"TX_SEG_SIZE", "RX_SEG_SIZE", "TCP_TX_SEG_SIZE", "TCP_RX_SEG_SIZE"}) {
    ucp_config_modify(config, name, "256k");
  }
  if (modified.ok() && !options.network_devices.empty()) {
    modified = Modify(config, "NET_DEVICES", options.network_devices);
  }
  if (!modified.ok()) {
    ucp_config_release(config);
    return modified;
  }
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  status = ucp_init(&params, config, &context);
  ucp_config_release(config);
  if (status != UCS_OK) {
    return UcxError(status,
                    absl::StrCat("UCX cannot start with the transports '", options.transports,
                                 "' on the network devices '", options.network_devices, "'"));
  }
  return context;
}

}  // namespace

absl::Status UcxTransport::CarriesDeviceMemory() {
  UcxOptions options;
  options.transports += kCudaTransports;
  LH_ASSIGN_OR_RETURN(ucp_context * context, MakeContext(options));
  absl::Status known = CheckKnowsCuda(context);
  ucp_cleanup(context);
  return known;
}

absl::StatusOr<std::unique_ptr<UcxTransport>> UcxTransport::Make(UcxOptions options) {
  options = Completed(std::move(options));
  options.memory->BindThread();
  LH_ASSIGN_OR_RETURN(ucp_context * context, MakeContext(options));
  if (options.memory->kind() == MemoryKind::kCuda) {
    if (absl::Status known = CheckKnowsCuda(context); !known.ok()) {
      ucp_cleanup(context);
      return known;
    }
  }
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  const int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  LH_CHECK(epoll_fd >= 0 && timer_fd >= 0, "out of file descriptors: raise the limit");
  return std::unique_ptr<UcxTransport>(
      new UcxTransport(std::move(options), context, epoll_fd, timer_fd));
}

UcxTransport::UcxTransport(UcxOptions options, ucp_context* context, int epoll_fd, int timer_fd)
    : options_(std::move(options)),
      context_(context),
      epoll_fd_(epoll_fd),
      timer_fd_(timer_fd),
      self_(ThisProcess()),
      buffers_(std::make_unique<UcxBuffers>(options_.memory, options_.segment_bytes_max)) {
  epoll_event event{};
  event.events = EPOLLIN;
  LH_CHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, timer_fd_, &event) == 0, std::strerror(errno));
}

UcxTransport::~UcxTransport() {
  for (const UcxLink* link : links_) {
    LH_CHECK(link == nullptr, "a transport was destroyed before its links");
  }
  options_.memory->BindThread();
  if (buried_.empty()) {
    ucp_cleanup(context_);
  } else {
    // The process ends with peers that do not answer: UCX cannot let go of them, the kernel can.
    for (auto& worker : buried_) worker.release();
  }
  close(timer_fd_);
  close(epoll_fd_);
}

std::string UcxTransport::description() const {
  return absl::StrCat("UCX ", ucp_get_version_string(), " (", options_.transports,
                      options_.network_only ? ", network only)" : ")");
}

absl::StatusOr<std::unique_ptr<UcxWorker>> UcxTransport::MakeWorker() {
  options_.memory->BindThread();  // every link of this thread begins here
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE | UCP_WORKER_PARAM_FIELD_FLAGS;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  // A link that ends leaves requests behind by design.
  params.flags = UCP_WORKER_FLAG_IGNORE_REQUEST_LEAK;
  ucp_worker_h worker = nullptr;
  const ucs_status_t status = ucp_worker_create(context_, &params, &worker);
  if (status != UCS_OK) {
    return UcxError(
        status, "UCX cannot make a worker (look at the limits on shared memory and open files)");
  }
  return std::make_unique<UcxWorker>(worker, epoll_fd_);
}

absl::StatusOr<Transport::Accepted> UcxTransport::Accept() {
  LH_ASSIGN_OR_RETURN(std::unique_ptr<UcxWorker> worker, MakeWorker());
  ucp_address_t* packed = nullptr;
  size_t packed_bytes = 0;
  const ucs_status_t status = ucp_worker_get_address(worker->handle, &packed, &packed_bytes);
  if (status != UCS_OK) return UcxError(status, "UCX cannot tell the address of a worker");
  UcxAddress address = self_;
  address.link_id = RandomId();
  address.segment_bytes_max = static_cast<uint64_t>(options_.segment_bytes_max);
  address.worker.assign(reinterpret_cast<const char*>(packed), packed_bytes);
  ucp_worker_release_address(worker->handle, packed);
  Accepted accepted;
  accepted.address = EncodeUcxAddress(address);
  accepted.link = std::make_unique<UcxReceiver>(this, std::move(worker), address.link_id);
  return accepted;
}

absl::StatusOr<std::unique_ptr<Link>> UcxTransport::Connect(const std::string& address) {
  LH_ASSIGN_OR_RETURN(const UcxAddress peer, DecodeUcxAddress(address));
  const bool same_host = peer.host_id == self_.host_id;
  if (same_host && !StillRuns(peer)) {
    return absl::UnavailableError(
        absl::StrCat("the receiver, process ", peer.pid, " of this host, has ended"));
  }
  LH_ASSIGN_OR_RETURN(std::unique_ptr<UcxWorker> worker, MakeWorker());
  return UcxSender::Make(this, std::move(worker), peer, options_.network_only || !same_host);
}

bool UcxTransport::Poll() {
  bool worked = false;
  // By index: callbacks make links and destroy them.
  for (size_t i = 0; i < links_.size(); ++i) {
    if (links_[i] != nullptr) worked = links_[i]->Poll() || worked;
  }
  std::erase(links_, nullptr);
  PollBuried();
  if (worked) fruitless_arms_ = 0;
  return worked;
}

void UcxTransport::Bury(std::unique_ptr<UcxWorker> worker) {
  unsigned major = 0, minor = 0, release = 0;
  ucp_get_version(&major, &minor, &release);
  const bool may_abort =
      major == 1 && minor < 18;  // when a worker is destroyed amid its own business
  if (!may_abort || worker->Finished()) return;
  // It is looked at now and then, but wakes nobody: its peer may be gone, and its connection in
  // error for good.
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, worker->event_fd, nullptr);
  buried_.push_back(std::move(worker));
}

void UcxTransport::PollBuried() {
  std::erase_if(buried_, [](const std::unique_ptr<UcxWorker>& worker) {
    ucp_worker_progress(worker->handle);
    return worker->Finished();
  });
}

bool UcxTransport::ArmWait() {
  bool armed = true;
  for (UcxLink* link : links_) {
    if (link != nullptr && !link->Arm()) armed = false;
  }
  if (armed) {
    fruitless_arms_ = 0;
    const bool outstanding =
        !buried_.empty() || std::any_of(links_.begin(), links_.end(), [](const UcxLink* link) {
          return link != nullptr && link->outstanding();
        });
    SetTimer(outstanding ? kLookNs : 0);
    return true;
  }
  if (++fruitless_arms_ < kFruitlessArmsMax) return false;
  SetTimer(kRetryNs);
  return true;
}

void UcxTransport::SetTimer(int64_t delay_ns) {
  if (delay_ns == 0 && !timer_set_) return;
  timer_set_ = delay_ns != 0;
  // Setting it also takes back an expiry that WaitFd still shows.
  itimerspec once{};
  once.it_value.tv_nsec = delay_ns;
  timerfd_settime(timer_fd_, 0, &once, nullptr);
}

}  // namespace longhaul
