// What every reader of model files and every maker of models in memory holds its result to, so that
// the decoder and the tokenizer may trust a ModelFile. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/model/model_file.h"

namespace longhaul {

// Bounds that no real model comes near; they keep all products of shapes within 63 bits.
inline constexpr int64_t kLayersMax = 1024;
inline constexpr int64_t kWidthMax = 1 << 20;
inline constexpr int64_t kHeadsMax = 1024;
inline constexpr int64_t kHeadDimMax = 1024;
inline constexpr int64_t kVocabMax = 1 << 24;
inline constexpr int64_t kContextTokensMax = int64_t{1} << 31;

// Ranges of the configuration, presence and shape of every weight, ids within the vocabulary.
// InvalidArgument beginning with `where` on the first thing that does not fit.
absl::Status CheckModel(const ModelFile& model, const std::string& where);

// The ids that end a generation: those of `named` that are not -1, and the control tokens with
// which the known chat formats end a turn or a text. Ascending, without repetition.
std::vector<int32_t> EndTokens(const TokenizerData& tokenizer, absl::Span<const int32_t> named);

}  // namespace longhaul
