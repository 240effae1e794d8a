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

struct WorkerModelOptions {
  std::string path;
  int block_tokens = 16;
  int64_t kv_bytes = 0;  // of the pool; 0: twice the KV of the model's whole context, at least 256
                         // MiB, and at most a sixth of the memory that is free
  bool head = true;      // false: the process never samples
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
