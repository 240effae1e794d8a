// WorkerModel: a model file made ready on the ranks of a worker, with their KV pools: what a worker
// process loads at start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/engine/model_rank.h"
#include "common/model/backend_rank.h"
#include "common/model/model_file.h"
#include "common/model/sharded_kv_pool.h"
#include "common/proto/longhaul.pb.h"

namespace longhaul {

// Left free on a device for the tables of steps, recorded steps, the libraries' own memory and the
// trying out of algorithms.
inline constexpr int64_t kDeviceReserveBytes = int64_t{1536} << 20;

struct WorkerModelOptions {
  std::string path;
  int block_tokens = 0;  // of a KV block; 0: what suits the backend
  // Of the pools of all ranks together. 0, where the model computes in the host's memory: twice the
  // KV of its whole context, at least 256 MiB, and at most a sixth of what is free. 0 on a device:
  // all that is free on each, less what steps need (see step_rows_max) and kDeviceReserveBytes.
  int64_t kv_bytes = 0;
  bool head = true;  // false: the process never samples
  // On a device: rows of the largest step that memory is kept for, and of them the sampled ones.
  int64_t step_rows_max = 8192;
  int64_t sampled_rows_max = 256;
};

class WorkerModel {
 public:
  // `ranks`, in order of rank, outlive the model. Logs what it took. Errors: of the file (see
  // LoadModelFile), those of ShardWeights, ResourceExhausted with the bytes that are missing and
  // the flag that sets them.
  static absl::StatusOr<std::unique_ptr<WorkerModel>> Load(absl::Span<const BackendRank> ranks,
                                                           const WorkerModelOptions& options);

  const ModelFile& file() const { return file_; }
  // For the executor.
  std::vector<ModelRank> ranks() const;
  const ShardedKvPool& pool() const { return pool_; }
  const Fingerprint& fingerprint() const { return fingerprint_; }

 private:
  struct Rank {
    const BackendRank* device = nullptr;
    std::unique_ptr<Decoder> decoder;
    std::unique_ptr<DeviceBuffer> pool_memory;
    int64_t weight_bytes = 0;  // that its device took
  };

  absl::Status LoadRank(const WorkerModelOptions& options, int index);
  absl::Status AllocatePools(const WorkerModelOptions& options);
  absl::Status WarmUp(const WorkerModelOptions& options, int index);
  // Runs task(rank's index) for all ranks at once, each in a thread. The first error, by rank.
  absl::Status OnAllRanks(absl::FunctionRef<absl::Status(int)> task);

  ModelFile file_;
  std::vector<Rank> ranks_;
  ShardedKvPool pool_;
  Fingerprint fingerprint_;
};

}  // namespace longhaul
