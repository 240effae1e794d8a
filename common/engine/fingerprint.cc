#include "common/engine/fingerprint.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

std::string RopeInWords(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  std::string words = absl::StrCat(config.rope_style == RopeStyle::kHalf ? "half" : "interleaved",
                                   " theta ", config.rope_theta);
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone:
      break;
    case RopeScaling::Kind::kLinear:
      absl::StrAppend(&words, " linear ", scaling.factor);
      break;
    case RopeScaling::Kind::kLlama3:
      absl::StrAppend(&words, " llama3 ", scaling.factor, " ", scaling.low_freq_factor, " ");
      absl::StrAppend(&words, scaling.high_freq_factor, " ", scaling.original_context_tokens);
      break;
  }
  if (!config.rope_freq_divisors.empty()) {
    absl::StrAppend(&words, " divisors ", absl::StrJoin(config.rope_freq_divisors, ","));
  }
  return words;
}

template <typename Value>
absl::Status CheckField(absl::string_view field, const Value& ours, const Value& theirs) {
  if (ours == theirs) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the workers' ", field, " differ: ", ours, " here, ", theirs,
                   " there; serve the same model with the same settings on both"));
}

}  // namespace

Fingerprint MakeFingerprint(const ModelConfig& config, const Hash128& model_digest,
                            const KvLayout& layout) {
  Fingerprint fingerprint;
  fingerprint.set_model_digest_high(model_digest.high);
  fingerprint.set_model_digest_low(model_digest.low);
  fingerprint.set_layers(layout.layers);
  fingerprint.set_kv_heads(layout.kv_heads);
  fingerprint.set_head_dim(layout.head_dim);
  fingerprint.set_block_tokens(layout.block_tokens);
  fingerprint.set_kv_dtype(std::string(DTypeName(layout.dtype)));
  fingerprint.set_rope(RopeInWords(config));
  fingerprint.set_protocol_version(kProtocolVersion);
  return fingerprint;
}

absl::Status CheckFingerprints(const Fingerprint& ours, const Fingerprint& theirs) {
  LH_RETURN_IF_ERROR(
      CheckField("protocol versions", ours.protocol_version(), theirs.protocol_version()));
  LH_RETURN_IF_ERROR(
      CheckField("KV transports (--kv_transport)", ours.kv_transport(), theirs.kv_transport()));
  LH_RETURN_IF_ERROR(CheckField("layer counts", ours.layers(), theirs.layers()));
  LH_RETURN_IF_ERROR(CheckField("KV head counts", ours.kv_heads(), theirs.kv_heads()));
  LH_RETURN_IF_ERROR(CheckField("head dimensions", ours.head_dim(), theirs.head_dim()));
  LH_RETURN_IF_ERROR(CheckField("KV block sizes", ours.block_tokens(), theirs.block_tokens()));
  LH_RETURN_IF_ERROR(CheckField("KV types", ours.kv_dtype(), theirs.kv_dtype()));
  LH_RETURN_IF_ERROR(CheckField("rotary embeddings", ours.rope(), theirs.rope()));
  LH_RETURN_IF_ERROR(
      CheckField("model digests", ours.model_digest_high(), theirs.model_digest_high()));
  return CheckField("model digests", ours.model_digest_low(), theirs.model_digest_low());
}

}  // namespace longhaul
