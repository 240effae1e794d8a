#include "kernels/choose_backend.h"

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"

namespace longhaul {

absl::StatusOr<std::unique_ptr<Backend>> ChooseBackend(const BackendChoice& choice) {
  bool cuda = choice.backend == "cuda";
  std::string why = "--backend";
  if (choice.backend == "auto") {
    absl::Status usable = CudaDeviceAnswers(choice.cuda.device);
    if (usable.ok()) usable = choice.carries_device_memory();
    cuda = usable.ok();
    why = cuda ? "a device answers" : std::string(usable.message());
  } else if (cuda) {
    LH_RETURN_IF_ERROR(choice.carries_device_memory());
  } else if (choice.backend != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("--backend is ", choice.backend, "; it must be auto, cpu or cuda"));
  }
  LH_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend,
                      cuda ? MakeCudaBackend(choice.cuda) : MakeCpuBackend(choice.cpu));
  LogInfo("backend_chosen", {{"device", backend->name()}, {"why", why}});
  return backend;
}

}  // namespace longhaul
