// From a GenerateRequest off the wire to what the scheduler works on: every field checked, nothing
// trusted.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/proto/longhaul.pb.h"
#include "decode_worker/decode_scheduler.h"

namespace longhaul {

// InvalidArgument names the field, its value and what is valid. Tokens are in [0, vocab).
absl::StatusOr<DecodeRequest> CheckGenerateRequest(const GenerateRequest& message, int64_t vocab,
                                                   absl::Span<const int32_t> eos_tokens);

}  // namespace longhaul
