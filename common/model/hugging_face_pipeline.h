// The steps around the BPE model in tokenizer.json (normalizer, pre_tokenizer, post_processor),
// flattened and held to what TokenizerData can say. Part of hugging_face_tokenizer.cc.
#pragma once

#include "absl/status/status.h"
#include "common/model/json_fields.h"
#include "common/model/tokenizer_data.h"

namespace longhaul {

// Reads `normalizer` and `pre_tokenizer` of `root` into `data`: the model kind (byte-level or
// SentencePiece) and how a text is cut. InvalidArgument for a step that is not supported.
absl::Status ReadTextSteps(const JsonFields& root, TokenizerData* data);

// Reads `post_processor`: add_bos with bos_token and add_eos with eos_token.
absl::Status ReadPostProcessor(const JsonFields& root, TokenizerData* data);

}  // namespace longhaul
