#include "common/engine/worker_model.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/engine/fingerprint.h"

namespace longhaul {
namespace {

int64_t PoolBytes(const WorkerModelOptions& options, const KvLayout& layout, const Backend& backend,
                  const Decoder& decoder) {
  if (options.kv_bytes > 0) return options.kv_bytes;
  const int64_t free_bytes = backend.capacity_bytes();
  if (backend.host_visible()) {
    const int64_t wanted = std::max(2 * decoder.config().context_tokens_max * layout.token_bytes(),
                                    int64_t{256} << 20);
    return std::min(wanted, free_bytes / 6);
  }
  const int64_t step_bytes =
      decoder.ActivationBytes(options.step_rows_max, options.head ? options.sampled_rows_max : 0);
  return std::max<int64_t>(0, free_bytes - step_bytes - kDeviceReserveBytes);
}

// Runs the largest step once, so that its memory is taken and whatever a device makes on first use
// is made before the first request.
absl::Status WarmUp(const WorkerModelOptions& options, const KvPool& pool, Decoder& decoder) {
  const int64_t pool_tokens = pool.blocks * pool.layout.block_tokens;
  const int64_t sampled_rows = options.head ? 1 : 0;
  const int64_t rows = std::min(options.step_rows_max, pool_tokens - sampled_rows);
  std::vector<BlockId> blocks(pool.layout.BlocksFor(rows + sampled_rows));
  std::iota(blocks.begin(), blocks.end(), 0);
  Batch batch;
  batch.tokens.assign(rows + sampled_rows, 0);
  batch.prefill_rows = rows;
  batch.sequences.push_back({Phase::kPrefill, 0, rows, 0, blocks});
  const SamplingParams params;
  std::vector<SampleRow> samples(sampled_rows);
  for (SampleRow& sample : samples) {
    sample.params = &params;
    batch.sequences.push_back({Phase::kDecode, rows, 1, rows, blocks});
  }
  return decoder.Run(batch, pool, absl::MakeSpan(samples), [](int, DeviceEvent) {}).status();
}

// Tells how far a model is whose weights take a while to load.
constexpr int64_t kProgressBytes = int64_t{2} << 30;

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerModel>> WorkerModel::Load(Backend& backend,
                                                               const WorkerModelOptions& options) {
  auto model = std::make_unique<WorkerModel>();
  LH_ASSIGN_OR_RETURN(model->file_, LoadModelFile(options.path));
  const ModelConfig& config = model->file_.config;
  KvLayout& layout = model->pool_.layout;
  layout = {
      .layers = config.layers,
      .kv_heads = config.kv_heads,
      .head_dim = config.head_dim,
      .block_tokens = options.block_tokens > 0 ? options.block_tokens : backend.block_tokens(),
      .dtype = DType::kBF16};
  LH_RETURN_IF_ERROR(backend.CheckShapes(config, layout));
  const int64_t free_bytes = backend.capacity_bytes();
  int64_t told_bytes = 0;
  const auto layer_prepared = [&](int layers) {
    if (backend.host_visible()) return;  // nothing is copied
    const int64_t loaded_bytes = free_bytes - backend.capacity_bytes();
    if (loaded_bytes - told_bytes < kProgressBytes) return;
    told_bytes = loaded_bytes;
    LogInfo("model_loading",
            {{"layers_loaded", layers}, {"layers", config.layers}, {"weight_bytes", loaded_bytes}});
  };
  LH_ASSIGN_OR_RETURN(model->decoder_,
                      Decoder::Create(backend, config, model->file_.weights,
                                      {.head = options.head, .layer_prepared = layer_prepared}));
  backend.Wait(backend.Record());
  const int64_t weight_bytes = free_bytes - backend.capacity_bytes();
  const int64_t pool_bytes = PoolBytes(options, layout, backend, *model->decoder_);
  model->pool_.blocks = pool_bytes / layout.block_bytes();
  if (model->pool_.blocks < 1) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a KV pool of ", pool_bytes, " bytes holds no block of ", layout.block_bytes(),
                     " bytes; raise --kv_bytes, or --gpu_memory_share on a GPU"));
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
  if (!backend.host_visible()) {
    LH_RETURN_IF_ERROR(WarmUp(options, model->pool_, *model->decoder_));
    LogInfo("device_memory", {{"weight_bytes", weight_bytes},
                              {"kv_bytes", model->pool_.blocks * layout.block_bytes()},
                              {"free_bytes", backend.capacity_bytes()}});
  }
  return model;
}

}  // namespace longhaul
