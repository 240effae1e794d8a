#include "common/engine/worker_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/engine/fingerprint.h"

namespace longhaul {
namespace {

int64_t PoolBytes(const WorkerModelOptions& options, const KvLayout& layout,
                  const ModelConfig& config, int64_t free_bytes) {
  if (options.kv_bytes > 0) return options.kv_bytes;
  const int64_t wanted =
      std::max(2 * config.context_tokens_max * layout.token_bytes(), int64_t{256} << 20);
  return std::min(wanted, free_bytes / 6);
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerModel>> WorkerModel::Load(Backend& backend,
                                                               const WorkerModelOptions& options) {
  auto model = std::make_unique<WorkerModel>();
  LH_ASSIGN_OR_RETURN(model->file_, LoadModelFile(options.path));
  const ModelConfig& config = model->file_.config;
  KvLayout& layout = model->pool_.layout;
  layout = {.layers = config.layers,
            .kv_heads = config.kv_heads,
            .head_dim = config.head_dim,
            .block_tokens = options.block_tokens,
            .dtype = DType::kBF16};
  LH_RETURN_IF_ERROR(backend.CheckShapes(config, layout));
  LH_ASSIGN_OR_RETURN(model->decoder_, Decoder::Create(backend, config, model->file_.weights,
                                                       {.head = options.head}));
  const int64_t pool_bytes = PoolBytes(options, layout, config, backend.capacity_bytes());
  model->pool_.blocks = pool_bytes / layout.block_bytes();
  if (model->pool_.blocks < 1) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a KV pool of ", pool_bytes, " bytes holds no block of ", layout.block_bytes(),
                     " bytes; raise --kv_bytes"));
  }
  LH_ASSIGN_OR_RETURN(model->pool_memory_,
                      backend.Allocate(model->pool_.blocks * layout.block_bytes()));
  model->pool_.data = model->pool_memory_->data();
  model->fingerprint_ = MakeFingerprint(config, model->file_.digest, layout);
  LogInfo("model_loaded", {{"model", config.name},
                           {"device", backend.name()},
                           {"layers", config.layers},
                           {"context_tokens_max", config.context_tokens_max},
                           {"kv_blocks", model->pool_.blocks},
                           {"kv_tokens", model->pool_.blocks * layout.block_tokens},
                           {"kv_bytes", model->pool_.blocks * layout.block_bytes()}});
  return model;
}

}  // namespace longhaul
