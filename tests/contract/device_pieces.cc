#include "tests/contract/device_pieces.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "common/base/status.h"

namespace longhaul {
namespace {

constexpr int64_t kChunkBytes = 256 << 20;
// Odd, so that pieces lie as badly as they can.
constexpr int64_t kGapBytes = 97;
constexpr std::byte kUntouched{0xA5};
constexpr std::byte kNextOwner{0x5A};

}  // namespace

class DevicePiecesLink final : public Link {
 public:
  DevicePiecesLink(DevicePiecesTransport* transport, std::unique_ptr<Link> carrier)
      : transport_(transport), carrier_(std::move(carrier)) {}
  ~DevicePiecesLink() override {
    carrier_.reset();
    for (const Region& region : received_) ExpectLeftAlone(region);
  }

  void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) override {
    const Region region = Place(pieces);
    memory().Copy(ToDevice(region, pieces));
    std::vector<SendPiece> there;
    for (const auto& [at, bytes] : region.pieces) there.push_back({at, bytes});
    carrier_->Send(tag, std::move(there), std::move(done));
  }

  void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) override {
    Region& region = received_.emplace_back(Place(pieces));
    Write(region, std::vector<std::byte>(region.bytes, kUntouched));
    std::vector<ReceivePiece> there;
    for (const auto& [at, bytes] : region.pieces) there.push_back({at, bytes});
    carrier_->Receive(tag, std::move(there),
                      [this, &region, pieces = std::move(pieces),
                       done = std::move(done)](absl::Status status) mutable {
                        memory().Copy(ToHost(region, pieces));
                        HandOn(region);
                        std::move(done)(std::move(status));
                      });
  }

  void Cancel(TransferTag tag) override { carrier_->Cancel(tag); }
  void Close() override { carrier_->Close(); }
  std::string path() const override { return carrier_->path(); }

 private:
  struct Region {
    std::byte* begin = nullptr;
    int64_t bytes = 0;
    std::vector<std::pair<std::byte*, int64_t>> pieces;
    bool done = false;
  };

  KvMemory& memory() const { return transport_->memory_->memory(); }

  template <typename Piece>
  Region Place(const std::vector<Piece>& pieces) {
    Region region;
    region.bytes = kGapBytes;
    for (const Piece& piece : pieces) region.bytes += piece.bytes + kGapBytes;
    region.begin = transport_->Take(region.bytes);
    std::byte* at = region.begin + kGapBytes;
    for (const Piece& piece : pieces) {
      region.pieces.emplace_back(at, piece.bytes);
      at += piece.bytes + kGapBytes;
    }
    return region;
  }

  static std::vector<KvMemory::Run> ToDevice(const Region& region,
                                             const std::vector<SendPiece>& pieces) {
    std::vector<KvMemory::Run> runs;
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].bytes == 0) continue;
      runs.push_back({region.pieces[i].first, pieces[i].data, pieces[i].bytes});
    }
    return runs;
  }
  static std::vector<KvMemory::Run> ToHost(const Region& region,
                                           const std::vector<ReceivePiece>& pieces) {
    std::vector<KvMemory::Run> runs;
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].bytes == 0) continue;
      runs.push_back({pieces[i].data, region.pieces[i].first, pieces[i].bytes});
    }
    return runs;
  }

  std::vector<std::byte> Read(const Region& region) const {
    std::vector<std::byte> bytes(region.bytes);
    memory().Copy({{bytes.data(), region.begin, region.bytes}});
    return bytes;
  }
  void Write(const Region& region, const std::vector<std::byte>& bytes) const {
    memory().Copy({{region.begin, bytes.data(), region.bytes}});
  }

  // The receive is over: its pieces, but not what lies between them, get their next owner.
  void HandOn(Region& region) const {
    region.done = true;
    std::vector<std::byte> bytes = Read(region);
    for (const auto& [at, piece_bytes] : region.pieces) {
      const auto first = bytes.begin() + (at - region.begin);
      std::fill(first, first + piece_bytes, kNextOwner);
    }
    Write(region, bytes);
  }

  void ExpectLeftAlone(const Region& region) const {
    EXPECT_TRUE(region.done);
    std::vector<std::byte> expected(region.bytes, kUntouched);
    for (const auto& [at, piece_bytes] : region.pieces) {
      const auto first = expected.begin() + (at - region.begin);
      std::fill(first, first + piece_bytes, kNextOwner);
    }
    EXPECT_TRUE(Read(region) == expected) << "written outside of the pieces, or after done";
  }

  DevicePiecesTransport* const transport_;
  std::unique_ptr<Link> carrier_;
  std::deque<Region> received_;
};

absl::StatusOr<Transport::Accepted> DevicePiecesTransport::Accept() {
  LH_ASSIGN_OR_RETURN(Accepted accepted, carrier_->Accept());
  accepted.link = std::make_unique<DevicePiecesLink>(this, std::move(accepted.link));
  return accepted;
}

absl::StatusOr<std::unique_ptr<Link>> DevicePiecesTransport::Connect(const std::string& address) {
  LH_ASSIGN_OR_RETURN(std::unique_ptr<Link> link, carrier_->Connect(address));
  return std::make_unique<DevicePiecesLink>(this, std::move(link));
}

std::byte* DevicePiecesTransport::Take(int64_t bytes) {
  if (chunks_.empty() || taken_bytes_ + bytes > chunks_.back()->bytes()) {
    chunks_.push_back(memory_->Allocate(std::max(bytes, kChunkBytes)));
    taken_bytes_ = 0;
  }
  std::byte* const at = chunks_.back()->data() + taken_bytes_;
  taken_bytes_ += bytes;
  return at;
}

}  // namespace longhaul
