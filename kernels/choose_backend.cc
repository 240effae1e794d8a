#include "kernels/choose_backend.h"

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

constexpr char kHostMemoryOnly[] = "this process's KV transport moves host memory only";

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> ChooseBackend(const BackendChoice& choice) {
  bool cuda = choice.backend == "cuda";
  std::string why = "--backend";
  if (choice.backend == "auto") {
    const absl::Status answers = CudaDeviceAnswers(choice.cuda.device);
    cuda = answers.ok() && !choice.host_memory_only;
    why = cuda           ? "a device answers"
          : answers.ok() ? kHostMemoryOnly
                         : std::string(answers.message());
  } else if (cuda && choice.host_memory_only) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--backend=cuda: ", kHostMemoryOnly,
        "; use --backend=cpu here, or longhaul_standalone, whose workers share the GPU"));
  } else if (!cuda && choice.backend != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("--backend is ", choice.backend, "; it must be auto, cpu or cuda"));
  }
  LH_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend,
                      cuda ? MakeCudaBackend(choice.cuda) : MakeCpuBackend(choice.cpu));
  LogInfo("backend_chosen", {{"device", backend->name()}, {"why", why}});
  return backend;
}

}  // namespace longhaul
