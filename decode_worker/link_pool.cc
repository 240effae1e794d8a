#include "decode_worker/link_pool.h"

namespace longhaul {

void LinkPool::Get(const std::string& peer, Ready ready) {
  Entry& entry = links_[peer];
  if (entry.ready) {
    ready(entry.made);
    return;
  }
  entry.waiting.push_back(std::move(ready));
  if (entry.waiting.size() > 1) return;
  entry.made.link = engine_->Accept([this, peer](absl::StatusOr<std::string> address) {
    Entry& entry = links_[peer];
    std::vector<Ready> waiting = std::move(entry.waiting);
    entry.waiting.clear();
    absl::StatusOr<PeerLink> result = PeerLink{};
    if (address.ok()) {
      entry.made.address = *std::move(address);
      entry.ready = true;
      result = entry.made;
    } else {
      result = address.status();
      links_.erase(peer);
    }
    for (Ready& callback : waiting) callback(result);
  });
}

void LinkPool::Retire(LinkId link) {
  for (auto it = links_.begin(); it != links_.end(); ++it) {
    if (!it->second.ready || it->second.made.link != link) continue;
    links_.erase(it);
    ++retired_;
    engine_->Close(link, [] {});
    return;
  }
}

}  // namespace longhaul
