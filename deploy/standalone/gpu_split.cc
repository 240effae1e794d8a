#include "deploy/standalone/gpu_split.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/log.h"
#include "common/base/status.h"

namespace longhaul {

absl::StatusOr<GpuSplit> SplitGpus(BackendChoice prefill, BackendChoice decode,
                                   const std::vector<int>& decode_devices) {
  GpuSplit split{std::move(prefill), std::move(decode)};
  LH_ASSIGN_OR_RETURN(split.prefill.devices, DevicesOf(split.prefill, "--device"));
  if (decode_devices.empty()) {
    split.decode.devices = split.prefill.devices;
  } else {
    if (split.decode.backend == "cpu") {
      return absl::InvalidArgumentError(
          absl::StrCat("--decode_device=", absl::StrJoin(decode_devices, ","),
                       " names a GPU, --backend=cpu takes none"));
    }
    // auto could put the two on devices that round differently.
    split.prefill.backend = split.decode.backend = "cuda";
    split.decode.devices = decode_devices;
    LH_ASSIGN_OR_RETURN(split.decode.devices, DevicesOf(split.decode, "--decode_device"));
  }
  const bool shared = std::any_of(
      split.decode.devices.begin(), split.decode.devices.end(),
      [&](int device) { return std::ranges::count(split.prefill.devices, device) > 0; });
  if (shared) {
    split.prefill.cuda.memory_share /= 2;
    split.decode.cuda.memory_share /= 2;
  }
  return split;
}

void WarnOfWaysThroughHost(const GpuSplit& split) {
  for (const int to : split.decode.devices) {
    for (const int from : split.prefill.devices) {
      if (from == to || CudaReachOf(to, from) != CudaReach::kHost) continue;
      LogWarning("kv_through_host",
                 {{"from_gpu", from},
                  {"to_gpu", to},
                  {"advice",
                   "these GPUs do not reach each other's memory; use two that NVLink or one PCIe "
                   "switch connects (nvidia-smi topo -m); KV transfers will limit the time to the "
                   "first token"}});
    }
  }
}

}  // namespace longhaul
