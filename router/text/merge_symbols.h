// The merging of BPE (Sennrich et al., 2016): while any two neighbours merge, the pair of smallest
// rank does, the leftmost among equals. Pure, any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "router/text/merge_table.h"

namespace longhaul {

// Merges the symbols [n] in place and shrinks the vector to what is left. Words, up to some dozens
// of symbols, cost O(n^2) with a small constant; longer pieces are merged window by window with a
// heap, which is linear in the piece.
void MergeSymbols(const MergeTable& merges, std::vector<int32_t>* symbols);

}  // namespace longhaul
