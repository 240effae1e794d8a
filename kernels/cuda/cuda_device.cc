#include "kernels/cuda/cuda_device.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_check.h"

namespace longhaul {
namespace {

// More than a step records: one for each layer, and a few.
constexpr int kEvents = 1024;

// By device: whether the process has a first user of it.
constexpr int kDevicesMax = 64;
std::array<std::atomic<bool>, kDevicesMax> has_first;

}  // namespace

class CudaDevice::Buffer final : public DeviceBuffer {
 public:
  Buffer(const CudaDevice& device, std::byte* data, int64_t bytes)
      : device_(device), data_(data), bytes_(bytes) {
    device_.books_->allocated_bytes += bytes_;
  }
  ~Buffer() override {
    device_.Bind();
    CudaCheck(cudaFree(data_), "cudaFree");
    device_.books_->allocated_bytes -= bytes_;
    ++device_.books_->frees;
  }
  std::byte* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  const CudaDevice& device_;
  std::byte* const data_;
  const int64_t bytes_;
};

absl::Status CudaDeviceAnswers(int device) {
  int devices = 0;
  const absl::Status asked = CudaStatus(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (!asked.ok()) {
    return absl::UnavailableError(absl::StrCat(
        "no CUDA device answers (", asked.message(),
        "): check that nvidia-smi shows a GPU and that its driver is of CUDA 13 or later"));
  }
  if (device < 0 || device >= devices) {
    return absl::UnavailableError(absl::StrCat("there is no CUDA device ", device, "; this machine",
                                               " has ", devices, ", counted from 0: set --device"));
  }
  int major = 0;
  LH_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                 "cudaDeviceGetAttribute"));
  if (major != 9) {
    return absl::UnavailableError(
        absl::StrCat("CUDA device ", device, " has compute capability ", major,
                     ".x; the kernels are built for 9.0 (H100, H200): use --backend=cpu"));
  }
  return absl::OkStatus();
}

int CudaDevices() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0;
}

CudaReach CudaReachOf(int device, int other) {
  int reaches = 0;
  CudaCheck(cudaDeviceCanAccessPeer(&reaches, device, other), "cudaDeviceCanAccessPeer");
  if (reaches == 0) return CudaReach::kHost;
  // CUDA does not name the way; of those between Hopper GPUs only NVLink carries atomics.
  int atomics = 0;
  CudaCheck(cudaDeviceGetP2PAttribute(&atomics, cudaDevP2PAttrNativeAtomicSupported, device, other),
            "cudaDeviceGetP2PAttribute");
  return atomics != 0 ? CudaReach::kNvLink : CudaReach::kPeer;
}

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Open(int device, double memory_share) {
  if (!(memory_share > 0.0 && memory_share <= 1.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a share of ", memory_share, " of the GPU's memory; use one in (0, 1]"));
  }
  LH_RETURN_IF_ERROR(CudaDeviceAnswers(device));
  LH_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device), "cudaSetDevice"));
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  LH_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
  const auto bytes_max = static_cast<int64_t>(memory_share * static_cast<double>(total_bytes));
  return std::unique_ptr<CudaDevice>(new CudaDevice(device, bytes_max));
}

CudaDevice::CudaDevice(int device, int64_t bytes_max)
    : device_(device),
      bytes_max_(bytes_max),
      is_first_(device < kDevicesMax && !has_first[device].exchange(true)),
      events_(kEvents) {
  cudaDeviceProp properties;
  CudaCheck(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  multiprocessors_ = properties.multiProcessorCount;
  product_ = properties.name;
  int mps = 0;
  CudaCheck(cudaDeviceGetAttribute(&mps, cudaDevAttrMpsEnabled, device), "cudaDeviceGetAttribute");
  has_mps_ = mps != 0;
  CudaCheck(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  for (cudaEvent_t& event : events_) {
    CudaCheck(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  }
}

CudaDevice::~CudaDevice() {
  Bind();
  CudaCheck(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  for (const cudaEvent_t event : events_) CudaCheck(cudaEventDestroy(event), "cudaEventDestroy");
  CudaCheck(cudaStreamDestroy(stream_), "cudaStreamDestroy");
  if (is_first_) has_first[device_] = false;
}

std::string CudaDevice::name() const {
  return absl::StrFormat("cuda:%d: %s, %d multiprocessors, %.1f GiB of its memory", device_,
                         product_, multiprocessors_, static_cast<double>(bytes_max_) / (1 << 30));
}

void CudaDevice::Bind() const { CudaCheck(cudaSetDevice(device_), "cudaSetDevice"); }

int64_t CudaDevice::capacity_bytes() const {
  Bind();
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  CudaCheck(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  return std::max<int64_t>(
      0, std::min(static_cast<int64_t>(free_bytes), bytes_max_ - books_->allocated_bytes));
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CudaDevice::Allocate(int64_t bytes) {
  LH_CHECK(bytes > 0, absl::StrCat("a buffer of ", bytes, " bytes"));
  Bind();
  void* data = nullptr;
  cudaError_t result = cudaErrorMemoryAllocation;
  if (bytes <= bytes_max_ - books_->allocated_bytes) result = cudaMalloc(&data, bytes);
  if (result != cudaSuccess) {
    const absl::Status status = CudaStatus(result, "cudaMalloc");
    if (!absl::IsResourceExhausted(status)) return status;
    return absl::ResourceExhaustedError(absl::StrCat(
        "no GPU memory for a buffer of ", bytes, " bytes: ", capacity_bytes(),
        " bytes are left of the ", bytes_max_, " that this process may take",
        "; raise --gpu_memory_share, lower --kv_bytes, or free what else runs on the GPU"));
  }
  return std::make_unique<Buffer>(*this, static_cast<std::byte*>(data), bytes);
}

void CudaDevice::Copy(void* to, const void* from, int64_t bytes) {
  Bind();
  CudaCheck(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "cudaMemcpyAsync");
}

DeviceEvent CudaDevice::Record() {
  Bind();
  const cudaEvent_t event = events_[++recorded_ % kEvents];
  CudaCheck(cudaEventSynchronize(event), "cudaEventSynchronize");  // of kEvents ago: long done
  CudaCheck(cudaEventRecord(event, stream_), "cudaEventRecord");
  return recorded_;
}

bool CudaDevice::IsDone(DeviceEvent event) {
  if (event <= done_) return true;
  const cudaError_t result = cudaEventQuery(events_[event % kEvents]);
  if (result == cudaErrorNotReady) return false;
  CudaCheck(result, "cudaEventQuery");
  SetDone(event);
  return true;
}

void CudaDevice::Wait(DeviceEvent event) {
  if (event <= done_) return;
  CudaCheck(cudaEventSynchronize(events_[event % kEvents]), "cudaEventSynchronize");
  SetDone(event);
}

void CudaDevice::SetDone(DeviceEvent event) {
  uint64_t before = done_;
  while (before < event && !done_.compare_exchange_weak(before, event)) {
  }
}

absl::Status CudaDevice::ReachMemoryOf(int other) const {
  Bind();
  if (CudaReachOf(device_, other) == CudaReach::kHost) {
    return absl::UnavailableError(
        absl::StrCat("GPU ", device_, " does not reach the memory of GPU ", other,
                     "; use GPUs that NVLink or one PCIe switch connects (nvidia-smi topo -m)"));
  }
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(other, 0);
  if (enabled != cudaErrorPeerAccessAlreadyEnabled) {
    return CudaStatus(enabled, "cudaDeviceEnablePeerAccess");
  }
  (void)cudaGetLastError();
  return absl::OkStatus();
}

absl::Status JoinDevices(absl::Span<CudaDevice* const> devices) {
  for (size_t i = 0; i < devices.size(); ++i) {
    for (size_t j = 0; j < devices.size(); ++j) {
      if (i == j) continue;
      if (devices[i]->number() == devices[j]->number()) {
        return absl::InvalidArgumentError(absl::StrCat("--device names GPU ", devices[i]->number(),
                                                       " twice; each rank needs its own"));
      }
      LH_RETURN_IF_ERROR(devices[i]->ReachMemoryOf(devices[j]->number()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<CudaPinnedBuffer> CudaPinnedBuffer::Allocate(int64_t bytes) {
  void* data = nullptr;
  LH_RETURN_IF_ERROR(CudaStatus(cudaHostAlloc(&data, bytes, cudaHostAllocPortable),
                                absl::StrCat("pinned host memory of ", bytes, " bytes")));
  CudaPinnedBuffer buffer;
  buffer.data_.reset(static_cast<std::byte*>(data));
  buffer.bytes_ = bytes;
  return buffer;
}

void CudaPinnedBuffer::Free::operator()(std::byte* data) const {
  CudaCheck(cudaFreeHost(data), "cudaFreeHost");
}

}  // namespace longhaul
