// The digest that two workers compare before they exchange KV. Any thread.
#pragma once

#include "common/model/model_file.h"

namespace longhaul {

// Hashes the configuration (not the name), every weight's place, type, shape and a sample of its
// bytes, and the tokenizer.
Hash128 DigestOf(const ModelFile& model);

}  // namespace longhaul
