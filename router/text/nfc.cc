#include "router/text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "common/base/check.h"
#include "router/text/unicode_classes.h"

namespace longhaul {
namespace {

constexpr uint32_t kCodePoints = 0x110000;
// Below U+0300 every character is a starter, is in NFC and composes with nothing before it.
constexpr uint32_t kFirstMark = 0x300;

struct Range {
  uint32_t first;
  uint32_t last;
};

// Starters that combine with nothing here. Combining marks and composing characters added to
// Unicode after 9.0, and U+11A7, which utf8proc 2.8 takes for a Hangul final consonant and
// swallows.
constexpr Range kBarriers[] = {
    {0x11A7, 0x11A7},   {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},
    {0x9FE, 0x9FE},     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},
    {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E},
    {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};

enum class Quick : uint8_t {
  kDone,     // a starter that NFC leaves as it is whatever stands before it
  kMaybe,    // a mark, a character that decomposes, or one that may compose with what is before
  kBarrier,  // see kBarriers
};

// Quick-check values by code point, computed once.
class QuickTable {
 public:
  static const QuickTable& Get() {
    static const QuickTable* const table = new QuickTable();
    return *table;
  }
  Quick Of(uint32_t code_point) const { return values_[code_point]; }

 private:
  QuickTable() : values_(kCodePoints, Quick::kDone) {
    for (uint32_t c = kFirstMark; c < kCodePoints; ++c) {
      const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
      if (property->combining_class != 0) values_[c] = Quick::kMaybe;
      std::array<utf8proc_int32_t, 8> parts;
      const utf8proc_ssize_t count = Decompose(c, &parts);
      if (count > 1 || parts[0] != static_cast<utf8proc_int32_t>(c)) {
        // Its parts may compose with something before (only as seconds) or be rearranged; Hangul
        // syllables and most accented letters decompose into a starter and seconds, so they are
        // stable themselves, but a mark behind them may reach into them.
        values_[c] = Recomposes(c, parts, count) ? Quick::kDone : Quick::kMaybe;
        for (utf8proc_ssize_t i = 1; i < count; ++i) values_[parts[i]] = Quick::kMaybe;
      }
    }
    // Vowels and final consonants of Hangul compose by arithmetic.
    for (uint32_t c = 0x1161; c <= 0x1175; ++c) values_[c] = Quick::kMaybe;
    for (uint32_t c = 0x11A8; c <= 0x11C2; ++c) values_[c] = Quick::kMaybe;
    for (const Range& range : kBarriers) {
      for (uint32_t c = range.first; c <= range.last; ++c) values_[c] = Quick::kBarrier;
    }
  }

  static utf8proc_ssize_t Decompose(uint32_t c, std::array<utf8proc_int32_t, 8>* parts) {
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c), parts->data(),
        static_cast<utf8proc_ssize_t>(parts->size()), UTF8PROC_DECOMPOSE, &boundary);
    LH_CHECK(count >= 1 && count <= static_cast<utf8proc_ssize_t>(parts->size()),
             "utf8proc decomposes a character into more than eight");
    return count;
  }

  static bool Recomposes(uint32_t c, std::array<utf8proc_int32_t, 8> parts,
                         utf8proc_ssize_t count) {
    const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    return utf8proc_normalize_utf32(parts.data(), count, options) == 1 &&
           parts[0] == static_cast<utf8proc_int32_t>(c);
  }

  std::vector<Quick> values_;
};

void AppendUtf8(const std::vector<utf8proc_int32_t>& chars, size_t count, std::string* out) {
  for (size_t i = 0; i < count; ++i) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t size = utf8proc_encode_char(chars[i], bytes);
    out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
  }
}

// Normalises valid UTF-8 without barriers. utf8proc's own decomposition sorts marks by exchanging
// neighbours, quadratic on a long run of marks; hence the sort here, and utf8proc only composes.
void AppendNormalized(absl::string_view text, std::string* out) {
  std::vector<utf8proc_int32_t> chars;
  chars.reserve(text.size());
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end;) {
    const DecodedChar c = DecodeUtf8(p, end);
    utf8proc_int32_t parts[8];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c.code_point), parts, 8, UTF8PROC_DECOMPOSE, &boundary);
    chars.insert(chars.end(), parts, parts + count);
    p += c.bytes;
  }
  const auto class_of = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  for (auto it = chars.begin(); it != chars.end();) {
    if (class_of(*it) == 0) {
      ++it;
      continue;
    }
    const auto run_end =
        std::find_if(it, chars.end(), [&](utf8proc_int32_t c) { return class_of(c) == 0; });
    std::stable_sort(it, run_end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return class_of(a) < class_of(b);
    });
    it = run_end;
  }
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(chars.data(), static_cast<utf8proc_ssize_t>(chars.size()), options);
  LH_CHECK(count >= 0, "utf8proc cannot compose decomposed text");
  AppendUtf8(chars, static_cast<size_t>(count), out);
}

bool IsNormalized(absl::string_view text) {
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end;) {
    if (static_cast<uint8_t>(*p) < 0xCC) {  // below U+0300, or an invalid byte
      ++p;
      continue;
    }
    const DecodedChar c = DecodeUtf8(p, end);
    if (QuickTable::Get().Of(c.code_point) != Quick::kDone) return false;
    p += c.bytes;
  }
  return true;
}

}  // namespace

absl::string_view NormalizeNfc(absl::string_view text, std::string* storage) {
  if (IsNormalized(text)) return text;
  storage->clear();
  storage->reserve(text.size());
  const char* const end = text.data() + text.size();
  const char* begin = text.data();
  for (const char* p = begin; p != end;) {
    const DecodedChar c = DecodeUtf8(p, end);
    const char* const next = p + c.bytes;
    if (!c.valid || QuickTable::Get().Of(c.code_point) == Quick::kBarrier) {
      AppendNormalized(absl::string_view(begin, static_cast<size_t>(p - begin)), storage);
      storage->append(p, c.bytes);
      begin = next;
    }
    p = next;
  }
  AppendNormalized(absl::string_view(begin, static_cast<size_t>(end - begin)), storage);
  return *storage;
}

}  // namespace longhaul
