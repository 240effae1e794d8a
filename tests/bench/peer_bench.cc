// What crosses between two GPUs of one host at best, for links to be held against: copies from one
// memory to the other, and NCCL's send and receive, by size, one way and both ways at once. One
// process; operations of a size are queued one behind the other. Prints a JSON object a line.
//
//   peer_bench [--device=N] [--peer=N] [--nccl_blocks=N]
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_check.h"

ABSL_FLAG(int, device, 0, "CUDA's number of the GPU that sends where only one does.");
ABSL_FLAG(int, peer, 1, "CUDA's number of the other GPU.");
ABSL_FLAG(int, nccl_blocks, 8, "Blocks of a GPU that NCCL may take; 0: as many as it likes.");

namespace longhaul {
namespace {

constexpr int64_t kMiB = 1 << 20;
// The last is KV of 8K tokens of Llama-3-8B's shape, the third what a link moves of it at a time.
constexpr std::array<int64_t, 7> kSizes = {kMiB / 2,   2 * kMiB,   8 * kMiB,   32 * kMiB,
                                           128 * kMiB, 512 * kMiB, 1024 * kMiB};
constexpr int64_t kBytesMeasured = int64_t{8} << 30;
constexpr int64_t kRepeatsMin = 8, kRepeatsMax = 2000;

void CheckNccl(ncclResult_t result, const char* what) {
  LH_CHECK(result == ncclSuccess, absl::StrCat(what, ": ", ncclGetErrorString(result)));
}

struct Gpu {
  int device = 0;
  cudaStream_t stream = nullptr;
  void* out = nullptr;
  void* in = nullptr;
  ncclComm_t communicator = nullptr;
};

class Pair {
 public:
  Pair() {
    gpus_[0].device = absl::GetFlag(FLAGS_device);
    gpus_[1].device = absl::GetFlag(FLAGS_peer);
    for (int i = 0; i < 2; ++i) {
      Gpu& gpu = gpus_[i];
      int reaches = 0;
      CudaCheck(cudaSetDevice(gpu.device), "cudaSetDevice");
      CudaCheck(cudaDeviceCanAccessPeer(&reaches, gpu.device, gpus_[1 - i].device), "peers");
      // Else the driver copies through the host, which is then the ceiling.
      if (reaches != 0) {
        CudaCheck(cudaDeviceEnablePeerAccess(gpus_[1 - i].device, 0), "peer access");
      }
      std::printf("{\"device\": %d, \"reaches_peer\": %s}\n", gpu.device,
                  reaches ? "true" : "false");
      CudaCheck(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking), "a stream");
      CudaCheck(cudaMalloc(&gpu.out, kSizes.back()), "cudaMalloc");
      CudaCheck(cudaMalloc(&gpu.in, kSizes.back()), "cudaMalloc");
    }
    ncclUniqueId id;
    CheckNccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    CheckNccl(ncclGroupStart(), "ncclGroupStart");
    for (int i = 0; i < 2; ++i) {
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      if (absl::GetFlag(FLAGS_nccl_blocks) > 0) config.maxCTAs = absl::GetFlag(FLAGS_nccl_blocks);
      CudaCheck(cudaSetDevice(gpus_[i].device), "cudaSetDevice");
      CheckNccl(ncclCommInitRankConfig(&gpus_[i].communicator, 2, id, i, &config),
                "a communicator");
    }
    CheckNccl(ncclGroupEnd(), "ncclGroupEnd");
  }
  ~Pair() {
    for (const Gpu& gpu : gpus_) {
      (void)ncclCommAbort(gpu.communicator);
      (void)cudaStreamDestroy(gpu.stream);
      (void)cudaFree(gpu.out);
      (void)cudaFree(gpu.in);
    }
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  // `ways`: 1 from the first GPU to the second, 2 back, too.
  void Copy(int ways, int64_t bytes) {
    for (int i = 0; i < ways; ++i) {
      const Gpu &from = gpus_[i], &to = gpus_[1 - i];
      CudaCheck(cudaMemcpyPeerAsync(to.in, to.device, from.out, from.device, bytes, from.stream),
                "cudaMemcpyPeerAsync");
    }
  }
  void Send(int ways, int64_t bytes) {
    CheckNccl(ncclGroupStart(), "ncclGroupStart");
    for (int i = 0; i < ways; ++i) {
      const Gpu &from = gpus_[i], &to = gpus_[1 - i];
      CheckNccl(ncclSend(from.out, bytes, ncclInt8, 1 - i, from.communicator, from.stream), "send");
      CheckNccl(ncclRecv(to.in, bytes, ncclInt8, i, to.communicator, to.stream), "receive");
    }
    CheckNccl(ncclGroupEnd(), "ncclGroupEnd");
  }
  void Wait() {
    for (const Gpu& gpu : gpus_) CudaCheck(cudaStreamSynchronize(gpu.stream), "a wait");
  }

 private:
  std::array<Gpu, 2> gpus_;
};

void Measure(Pair& pair, const char* what, int ways, int64_t bytes,
             absl::FunctionRef<void()> queue) {
  const int64_t repeats = std::clamp(kBytesMeasured / bytes, kRepeatsMin, kRepeatsMax);
  for (int i = 0; i < 3; ++i) queue();
  pair.Wait();
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < repeats; ++i) queue();
  pair.Wait();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double moved = static_cast<double>(bytes) * ways * static_cast<double>(repeats);
  std::printf("{\"what\": \"%s\", \"ways\": %d, \"bytes\": %lld, \"gb_per_s\": %.2f}\n", what, ways,
              static_cast<long long>(bytes), moved / seconds / 1e9);
  std::fflush(stdout);
}

absl::Status Run() {
  for (const int device : {absl::GetFlag(FLAGS_device), absl::GetFlag(FLAGS_peer)}) {
    LH_RETURN_IF_ERROR(CudaDeviceAnswers(device));
  }
  Pair pair;
  for (const int ways : {1, 2}) {
    for (const int64_t bytes : kSizes) {
      Measure(pair, "copy", ways, bytes, [&] { pair.Copy(ways, bytes); });
      Measure(pair, "nccl", ways, bytes, [&] { pair.Send(ways, bytes); });
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = longhaul::Run();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
