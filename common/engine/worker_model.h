// WorkerModel: a model file made ready on a backend, with its KV pool: what a worker process loads
// at start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/model/backend.h"
#include "common/model/decoder.h"
#include "common/model/model_file.h"
#include "common/proto/longhaul.pb.h"

namespace longhaul {

// Left free on a device for the tables of steps, recorded steps, the libraries' own memory and the
// trying out of algorithms.
inline constexpr int64_t kDeviceReserveBytes = int64_t{1536} << 20;

struct WorkerModelOptions {
  std::string path;
  int block_tokens = 0;  // of a KV block; 0: what suits the backend
  // Of the pool. 0, where the model computes in the host's memory: twice the KV of its whole
  // context, at least 256 MiB, and at most a sixth of what is free. 0 on a device: all that is
  // free, less what steps need (see step_rows_max) and kDeviceReserveBytes.
  int64_t kv_bytes = 0;
  bool head = true;  // false: the process never samples
  // On a device: rows of the largest step that memory is kept for, and of them the sampled ones.
  int64_t step_rows_max = 8192;
  int64_t sampled_rows_max = 256;
};

class WorkerModel {
 public:
  // `backend` outlives the model. Logs what it took. Errors: of the file (see LoadModelFile),
  // ResourceExhausted with the bytes that are missing and the flag that sets them.
  static absl::StatusOr<std::unique_ptr<WorkerModel>> Load(Backend& backend,
                                                           const WorkerModelOptions& options);

  const ModelFile& file() const { return file_; }
  Decoder& decoder() { return *decoder_; }
  const KvPool& pool() const { return pool_; }
  const Fingerprint& fingerprint() const { return fingerprint_; }

 private:
  ModelFile file_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<DeviceBuffer> pool_memory_;
  KvPool pool_;
  Fingerprint fingerprint_;
};

}  // namespace longhaul
