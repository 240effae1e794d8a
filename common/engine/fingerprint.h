// What two workers must agree on before a byte of KV moves between them, and how to say what
// differs.
#pragma once

#include "absl/status/status.h"
#include "common/model/kv_layout.h"
#include "common/model/model_file.h"
#include "common/proto/longhaul.pb.h"

namespace longhaul {

// Raised whenever a message of longhaul.proto or the order of KV bytes changes its meaning.
inline constexpr int kProtocolVersion = 3;

// Of a model and its KV; a worker's transport is its process's to add.
Fingerprint MakeFingerprint(const ModelConfig& config, const Hash128& model_digest,
                            const KvLayout& layout);

// FailedPrecondition that names the first field that differs, with both values.
absl::Status CheckFingerprints(const Fingerprint& ours, const Fingerprint& theirs);

}  // namespace longhaul
