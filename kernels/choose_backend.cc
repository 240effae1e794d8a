#include "kernels/choose_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "kernels/cpu/in_process_collective.h"

namespace longhaul {
namespace {

absl::StatusOr<std::vector<BackendRank>> MakeGpuRanks(const BackendChoice& choice) {
  if (choice.tensor_parallel > 1) return MakeCudaRanks(choice.cuda, choice.devices);
  std::vector<BackendRank> ranks(1);
  CudaBackendOptions options = choice.cuda;
  options.device = choice.devices[0];
  LH_ASSIGN_OR_RETURN(ranks[0].backend, MakeCudaBackend(options));
  return ranks;
}

absl::StatusOr<std::vector<BackendRank>> MakeCpuRanks(const BackendChoice& choice) {
  std::vector<BackendRank> ranks(choice.tensor_parallel);
  CpuBackendOptions options = choice.cpu;
  for (BackendRank& rank : ranks) {
    LH_ASSIGN_OR_RETURN(rank.backend, MakeCpuBackend(options));
    if (options.cores.empty()) continue;
    const auto taken = static_cast<size_t>(options.threads) % options.cores.size();
    std::rotate(options.cores.begin(), options.cores.begin() + taken, options.cores.end());
  }
  if (choice.tensor_parallel == 1) return ranks;
  auto collectives = MakeInProcessCollectives(choice.tensor_parallel);
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i].collective = std::move(collectives[i]);
  return ranks;
}

}  // namespace

absl::StatusOr<std::vector<int>> DevicesOf(const BackendChoice& choice, const std::string& flag) {
  if (choice.tensor_parallel < 1 || choice.tensor_parallel > kRanksMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tensor_parallel=", choice.tensor_parallel, "; use 1 to ", kRanksMax));
  }
  const auto width = static_cast<size_t>(choice.tensor_parallel);
  std::vector<int> devices = choice.devices;
  while (choice.devices.size() == 1 && devices.size() < width) {
    devices.push_back(devices.back() + 1);
  }
  if (devices.size() == width) return devices;
  return absl::InvalidArgumentError(absl::StrCat(flag, " names ", devices.size(),
                                                 " GPUs; --tensor_parallel=", width,
                                                 " takes as many, or the first of them"));
}

absl::StatusOr<std::vector<BackendRank>> ChooseBackend(BackendChoice choice) {
  LH_ASSIGN_OR_RETURN(choice.devices, DevicesOf(choice, "--device"));
  bool cuda = choice.backend == "cuda";
  std::string why = "--backend";
  if (choice.backend == "auto") {
    absl::Status usable;
    for (const int device : choice.devices) usable.Update(CudaDeviceAnswers(device));
    if (usable.ok()) usable = choice.carries_device_memory();
    cuda = usable.ok();
    why = cuda ? "a device answers" : std::string(usable.message());
  } else if (cuda) {
    LH_RETURN_IF_ERROR(choice.carries_device_memory());
  } else if (choice.backend != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("--backend is ", choice.backend, "; it must be auto, cpu or cuda"));
  }
  LH_ASSIGN_OR_RETURN(std::vector<BackendRank> ranks,
                      cuda ? MakeGpuRanks(choice) : MakeCpuRanks(choice));
  for (size_t i = 0; i < ranks.size(); ++i) {
    // A device thread is the first of its rank's threads.
    const std::vector<int>& cores = choice.cpu.cores;
    if (!cores.empty()) ranks[i].core = cores[i * choice.cpu.threads % cores.size()];
    LogInfo("backend_chosen", {{"rank", i}, {"device", ranks[i].backend->name()}, {"why", why}});
  }
  return ranks;
}

}  // namespace longhaul
