// What the two ends of a lane link tell each other beside the lane. Frames on a stream: a length of
// four bytes, then a byte for the kind, the tag, and sizes, all little-endian.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kv_transfer/transport.h"

namespace longhaul {

struct LaneMessage {
  enum class Kind : uint8_t {
    // Sender: the first message; `tag` is the secret of the link's address.
    kHello = 1,
    // Receiver: a Receive was posted; `sizes` are its pieces.
    kWant = 2,
    // Receiver: the Receive has ended here without its message.
    kForget = 3,
    // Sender: the next message on the lane has these pieces and belongs to `tag`, whose bytes come
    // in order. None, of no bytes, crosses the lane when there are no sizes.
    kGo = 4,
    // Sender: nothing will come for `tag`: its message has sizes[0] bytes, not what was wanted.
    kMismatch = 5,
    // Sender: a Send was posted whose kWant has not come; its bytes wait there.
    kOffer = 6,
    // Receiver: too many messages wait for their Receives; this one is not wanted any more.
    kDrop = 7,
  };
  // A frame is refused beyond this, before anything is allocated for it.
  static constexpr int64_t kBytesMax = int64_t{64} << 20;

  Kind kind = Kind::kHello;
  TransferTag tag = 0;
  std::vector<int64_t> sizes;  // none negative

  void AppendTo(std::string& stream) const;
};

// Takes the first whole message off the front of `stream` from `*consumed` on, and moves that
// behind it; nothing when it is not whole yet. `*malformed` is set when no message can come of it.
std::optional<LaneMessage> ParseLaneMessage(absl::string_view stream, size_t* consumed,
                                            bool* malformed);

}  // namespace longhaul
