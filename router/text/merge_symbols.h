// The merging of BPE (Sennrich et al., 2016): while any two neighbours merge, the pair of smallest
// rank does, the leftmost among equals. Pure, any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "router/text/merge_table.h"

namespace longhaul {

// Merges the symbols [n] in place and shrinks the vector to what is left. O(n^2) of small constant
// for up to some dozens of symbols, which is what words are, and O(n log n) beyond.
void MergeSymbols(const MergeTable& merges, std::vector<int32_t>* symbols);

}  // namespace longhaul
