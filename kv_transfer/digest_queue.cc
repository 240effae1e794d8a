#include "kv_transfer/digest_queue.h"

#include <algorithm>
#include <utility>

#include "kv_transfer/transfer_plan.h"

namespace longhaul {

void DigestQueue::Add(absl::Span<const SendPiece> pieces, int64_t slab_bytes, Done done) {
  waiting_.push_back({UnitsOf(pieces, slab_bytes), slab_bytes, std::move(done)});
  if (batch_ == nullptr) Begin();
}

void DigestQueue::Begin() {
  const auto other = std::find_if(waiting_.begin(), waiting_.end(), [&](const Message& message) {
    return message.slab_bytes != waiting_.front().slab_bytes;
  });
  under_way_.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(other));
  waiting_.erase(waiting_.begin(), other);
  std::vector<const std::byte*> slabs;
  for (const Message& message : under_way_) {
    slabs.insert(slabs.end(), message.slabs.begin(), message.slabs.end());
  }
  batch_ = memory_->Digests(slabs, under_way_.front().slab_bytes);
  Look();
}

void DigestQueue::Look() {
  if (!batch_->Ready()) {
    loop_->Post([self = shared_from_this()] { self->Look(); });
    return;
  }
  const std::vector<uint64_t> digests = batch_->Take();
  std::vector<Message> ended = std::exchange(under_way_, {});
  auto rest = absl::MakeConstSpan(digests);
  for (Message& message : ended) {
    message.done(MessageDigest(rest.first(message.slabs.size())));
    rest.remove_prefix(message.slabs.size());
  }
  batch_ = nullptr;
  if (!waiting_.empty()) Begin();
}

}  // namespace longhaul
