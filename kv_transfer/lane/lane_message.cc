#include "kv_transfer/lane/lane_message.h"

#include <bit>
#include <cstring>

namespace longhaul {
namespace {

static_assert(std::endian::native == std::endian::little);
constexpr size_t kLengthBytes = sizeof(uint32_t);
constexpr size_t kHeadBytes = sizeof(LaneMessage::Kind) + sizeof(TransferTag);

template <typename Value>
void Append(std::string& to, Value value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename Value>
Value Read(const char* from) {
  Value value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

void LaneMessage::AppendTo(std::string& stream) const {
  Append(stream, static_cast<uint32_t>(kHeadBytes + sizes.size() * sizeof(int64_t)));
  Append(stream, kind);
  Append(stream, tag);
  for (const int64_t size : sizes) Append(stream, size);
}

std::optional<LaneMessage> ParseLaneMessage(absl::string_view stream, size_t* consumed,
                                            bool* malformed) {
  const absl::string_view rest = stream.substr(*consumed);
  if (rest.size() < kLengthBytes) return std::nullopt;
  const auto length = Read<uint32_t>(rest.data());
  const auto is_valid = [&] {
    return length >= kHeadBytes && length <= LaneMessage::kBytesMax &&
           (length - kHeadBytes) % sizeof(int64_t) == 0;
  };
  if (!is_valid()) {
    *malformed = true;
    return std::nullopt;
  }
  if (rest.size() < kLengthBytes + length) return std::nullopt;
  const char* at = rest.data() + kLengthBytes;
  const auto kind = Read<uint8_t>(at);
  LaneMessage message;
  message.tag = Read<TransferTag>(at + sizeof kind);
  *malformed = kind < static_cast<uint8_t>(LaneMessage::Kind::kHello) ||
               kind > static_cast<uint8_t>(LaneMessage::Kind::kDrop);
  message.kind = static_cast<LaneMessage::Kind>(kind);
  message.sizes.resize((length - kHeadBytes) / sizeof(int64_t));
  for (size_t i = 0; i < message.sizes.size(); ++i) {
    message.sizes[i] = Read<int64_t>(at + kHeadBytes + i * sizeof(int64_t));
    *malformed |= message.sizes[i] < 0;
  }
  if (*malformed) return std::nullopt;
  *consumed += kLengthBytes + length;
  return message;
}

}  // namespace longhaul
