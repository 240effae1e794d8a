#include "common/engine/worker_model.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/engine/fingerprint.h"
#include "common/runtime/thread_pool.h"

namespace longhaul {
namespace {

// For one rank of `width`, with a layout of its heads.
int64_t PoolBytes(const WorkerModelOptions& options, const KvLayout& layout, int width,
                  const Backend& backend, const Decoder& decoder) {
  if (options.kv_bytes > 0) return options.kv_bytes / width;
  const int64_t free_bytes = backend.capacity_bytes();
  if (backend.host_visible()) {
    const int64_t wanted = std::max(2 * decoder.config().context_tokens_max * layout.token_bytes(),
                                    (int64_t{256} << 20) / width);
    return std::min(wanted, free_bytes / 6 / width);
  }
  const int64_t step_bytes =
      decoder.ActivationBytes(options.step_rows_max, options.head ? options.sampled_rows_max : 0);
  return std::max<int64_t>(0, free_bytes - step_bytes - kDeviceReserveBytes);
}

// Tells how far a model is whose weights take a while to load.
constexpr int64_t kProgressBytes = int64_t{2} << 30;

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerModel>> WorkerModel::Load(absl::Span<const BackendRank> ranks,
                                                               const WorkerModelOptions& options) {
  auto model = std::make_unique<WorkerModel>();
  LH_ASSIGN_OR_RETURN(model->file_, LoadModelFile(options.path));
  const ModelConfig& config = model->file_.config;
  const Backend& first = *ranks[0].backend;
  model->pool_.layout = {
      .layers = config.layers,
      .kv_heads = config.kv_heads,
      .head_dim = config.head_dim,
      .block_tokens = options.block_tokens > 0 ? options.block_tokens : first.block_tokens(),
      .dtype = DType::kBF16};
  model->pool_.ranks.resize(ranks.size());
  for (const BackendRank& rank : ranks) model->ranks_.emplace_back().device = &rank;
  LH_RETURN_IF_ERROR(model->OnAllRanks([&](int index) { return model->LoadRank(options, index); }));
  LH_RETURN_IF_ERROR(model->AllocatePools(options));
  const KvLayout& layout = model->pool_.layout;
  model->fingerprint_ = MakeFingerprint(config, model->file_.digest, layout);
  LogInfo("model_loaded", {{"model", config.name},
                           {"device", first.name()},
                           {"tensor_parallel", ranks.size()},
                           {"layers", config.layers},
                           {"context_tokens_max", config.context_tokens_max},
                           {"kv_blocks", model->pool_.blocks},
                           {"kv_tokens", model->pool_.blocks * layout.block_tokens},
                           {"kv_bytes", model->pool_.blocks * layout.block_bytes()}});
  if (!first.host_visible()) {
    LH_RETURN_IF_ERROR(model->OnAllRanks([&](int index) { return model->WarmUp(options, index); }));
    for (const Rank& rank : model->ranks_) {
      LogInfo("device_memory", {{"device", rank.device->backend->name()},
                                {"weight_bytes", rank.weight_bytes},
                                {"kv_bytes", rank.pool_memory->bytes()},
                                {"free_bytes", rank.device->backend->capacity_bytes()}});
    }
  }
  return model;
}

std::vector<ModelRank> WorkerModel::ranks() const {
  std::vector<ModelRank> ranks;
  for (const Rank& rank : ranks_) {
    ranks.push_back({.backend = rank.device->backend.get(),
                     .decoder = rank.decoder.get(),
                     .pool = pool_.Rank(static_cast<int>(ranks.size())),
                     .core = rank.device->core});
  }
  return ranks;
}

absl::Status WorkerModel::LoadRank(const WorkerModelOptions& options, int index) {
  Rank& rank = ranks_[index];
  Backend& backend = *rank.device->backend;
  const TensorShard shard{index, pool_.width()};
  LH_ASSIGN_OR_RETURN(const ModelConfig config, ShardConfig(file_.config, shard));
  LH_ASSIGN_OR_RETURN(const ModelWeights weights, ShardWeights(file_.config, file_.weights, shard));
  LH_RETURN_IF_ERROR(backend.CheckShapes(config, pool_.Rank(index).layout));
  const int64_t free_bytes = backend.capacity_bytes();
  int64_t told_bytes = 0;
  const auto layer_prepared = [&](int layers) {
    if (backend.host_visible()) return;  // nothing is copied
    const int64_t loaded_bytes = free_bytes - backend.capacity_bytes();
    if (loaded_bytes - told_bytes < kProgressBytes) return;
    told_bytes = loaded_bytes;
    LogInfo("model_loading", {{"rank", index},
                              {"layers_loaded", layers},
                              {"layers", config.layers},
                              {"weight_bytes", loaded_bytes}});
  };
  LH_ASSIGN_OR_RETURN(rank.decoder, Decoder::Create(backend, config, weights,
                                                    {.head = options.head,
                                                     .layer_prepared = layer_prepared,
                                                     .collective = rank.device->collective.get()}));
  backend.Wait(backend.Record());
  rank.weight_bytes = free_bytes - backend.capacity_bytes();
  return absl::OkStatus();
}

// As many blocks on every rank as the poorest has room for.
absl::Status WorkerModel::AllocatePools(const WorkerModelOptions& options) {
  for (int index = 0; index < pool_.width(); ++index) {
    const Rank& rank = ranks_[index];
    const KvLayout layout = pool_.Rank(index).layout;
    const int64_t bytes =
        PoolBytes(options, layout, pool_.width(), *rank.device->backend, *rank.decoder);
    const int64_t blocks = bytes / layout.block_bytes();
    if (blocks < 1) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a KV pool of ", bytes, " bytes holds no block of ", layout.block_bytes(),
                       " bytes; raise --kv_bytes, or --gpu_memory_share on a GPU"));
    }
    pool_.blocks = index == 0 ? blocks : std::min(pool_.blocks, blocks);
  }
  for (int index = 0; index < pool_.width(); ++index) {
    Rank& rank = ranks_[index];
    const int64_t block_bytes = pool_.Rank(index).layout.block_bytes();
    LH_ASSIGN_OR_RETURN(rank.pool_memory,
                        rank.device->backend->Allocate(pool_.blocks * block_bytes));
    pool_.ranks[index] = rank.pool_memory->data();
  }
  return absl::OkStatus();
}

// Runs the largest step once, so that its memory is taken and whatever a device makes on first use
// is made before the first request.
absl::Status WorkerModel::WarmUp(const WorkerModelOptions& options, int index) {
  const KvPool pool = pool_.Rank(index);
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
  Backend& backend = *ranks_[index].device->backend;
  const absl::Status status =
      ranks_[index]
          .decoder->Run(batch, pool, absl::MakeSpan(samples), [](int, DeviceEvent) {})
          .status();
  backend.Wait(backend.Record());
  return status;
}

absl::Status WorkerModel::OnAllRanks(absl::FunctionRef<absl::Status(int)> task) {
  std::vector<absl::Status> statuses(ranks_.size());
  ThreadPool(static_cast<int>(ranks_.size())).RunOnAll([&](int index) {
    statuses[index] = task(index);
  });
  absl::Status first;
  for (const absl::Status& status : statuses) first.Update(status);
  return first;
}

}  // namespace longhaul
