// What a request must answer, whatever fails on the way: the same executor run alone on memory of
// its own.
#pragma once

#include <cstdint>
#include <vector>

namespace longhaul {

std::vector<int32_t> ReferenceTokens(const std::vector<int32_t>& prompt, int64_t output_tokens);

}  // namespace longhaul
