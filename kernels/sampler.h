// The sampler: from one row of logits to one token, in plain host code. Pure: the same logits and
// row always give the same token. Any thread.
//
// Order: penalties, logit bias and bans change the logits; temperature scales them; then top_k,
// top_p over what top_k left, and min_p relative to the most likely token cut the candidates; the
// draw is UniformAt(seed, output_position) over the rest. Equal logits are ordered by token id.
// Repetition penalty: Keskar et al., "CTRL", 2019. top_p: Holtzman et al., "The curious case of
// neural text degeneration", 2020. min_p: Nguyen et al., "Turning up the heat", 2024.
#pragma once

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/backend.h"

namespace longhaul {

// What a row asks for, before any logit is looked at. Error: InvalidArgument when params, history
// or bans name a token outside the vocabulary or a value outside its range.
absl::Status CheckSampleRow(const SampleRow& row, int64_t vocab);

// The errors that logits can cause: a NaN or +inf among them, and bias and bans that leave none.
absl::Status NotANumberError();
absl::Status NothingLeftError();

// logits [vocab]. Errors: Internal when a logit is NaN or +inf (a broken model or cache: no token
// would be honest); FailedPrecondition when bias and bans leave no token; those of
// CheckSampleRow.
absl::StatusOr<SampledToken> SampleToken(absl::Span<const float> logits, const SampleRow& row);

}  // namespace longhaul
