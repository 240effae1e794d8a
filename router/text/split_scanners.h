// Hand-written splitters: each does what one well-known regex does, in one pass without
// backtracking, so that any text is split in linear time. Pure functions, any thread.
//
// Each returns the end of the piece that starts at `p` < `end`, always past `p`; `end` is the end
// of the text for look-ahead. The pieces cover the text without gaps.
#pragma once

namespace longhaul {

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
const char* ScanGpt2(const char* p, const char* end);

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+| \s+(?!\S)|\s+
const char* ScanLlama3(const char* p, const char* end);

// As Llama 3, but with one \p{N} a piece.
const char* ScanQwen2(const char* p, const char* end);

// \p{N}, every number by itself; what lies between two numbers is one piece.
const char* ScanDigits(const char* p, const char* end);

}  // namespace longhaul
