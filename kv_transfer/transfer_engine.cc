#include "kv_transfer/transfer_engine.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "kv_transfer/digest_queue.h"

namespace longhaul {

struct TransferEngine::Shared : std::enable_shared_from_this<TransferEngine::Shared> {
  struct Entry {
    std::unique_ptr<Link> link;
    absl::Status failure;  // why there is no link
    int64_t outstanding = 0;
    bool closing = false;
    std::vector<Closed> on_closed;
  };

  // A send is over when the wire has let go of its pieces and their digest is known.
  struct SendEnd {
    SendDone done;
    absl::Status status;
    int parts_left = 2;
  };

  // Runs `task` on the owner's Loop unless the engine is gone by then.
  template <typename Task>
  void Reply(Task task) {
    loop->Post([self = shared_from_this(), task = std::move(task)]() mutable {
      if (self->alive) task();
    });
  }

  Entry* Find(LinkId id) {
    const auto found = links.find(id);
    return found == links.end() ? nullptr : &found->second;
  }

  static absl::Status Unusable(const Entry* entry) {
    if (entry == nullptr || entry->closing) return absl::CancelledError("the link is closed");
    return entry->failure;
  }

  void OperationEnded(LinkId id) {
    Entry* entry = Find(id);
    if (entry == nullptr) return;  // the engine's end: links are being destroyed
    --entry->outstanding;
    FinishClose(id, entry);
  }

  void SendPartOver(LinkId link, SendEnd& end) {
    if (--end.parts_left > 0) return;
    Reply([done = std::move(end.done), status = std::move(end.status)]() mutable {
      done(std::move(status));
    });
    OperationEnded(link);
  }

  void FinishClose(LinkId id, Entry* entry) {
    if (!entry->closing || entry->outstanding > 0) return;
    // The link may be on the stack above this callback: destroy it from a task of its own.
    transfer_loop->Post([self = shared_from_this(), id] {
      const auto found = self->links.find(id);
      if (found == self->links.end()) return;
      Entry closed = std::move(found->second);
      self->links.erase(found);
      closed.link.reset();
      for (Closed& callback : closed.on_closed) self->Reply(std::move(callback));
    });
  }

  Loop* loop;
  Loop* transfer_loop;
  Transport* transport;
  std::shared_ptr<DigestQueue> digests;      // transfer thread only
  bool alive = true;                         // owner's Loop only
  absl::flat_hash_map<LinkId, Entry> links;  // transfer thread only
};

TransferEngine::TransferEngine(Loop* loop, Loop* transfer_loop, Transport* transport,
                               KvMemory* memory)
    : shared_(std::make_shared<Shared>()) {
  shared_->loop = loop;
  shared_->transfer_loop = transfer_loop;
  shared_->transport = transport;
  shared_->digests = std::make_shared<DigestQueue>(transfer_loop, memory);
}

TransferEngine::~TransferEngine() {
  shared_->alive = false;
  shared_->transfer_loop->Post([shared = shared_] {
    auto links = std::move(shared->links);
    shared->links.clear();
  });
}

LinkId TransferEngine::Accept(Accepted accepted) {
  const LinkId id = next_link_++;
  shared_->transfer_loop->Post([shared = shared_, id, accepted = std::move(accepted)]() mutable {
    absl::StatusOr<Transport::Accepted> made = shared->transport->Accept();
    Shared::Entry& entry = shared->links[id];
    absl::StatusOr<std::string> address = std::string();
    if (made.ok()) {
      entry.link = std::move(made->link);
      address = std::move(made->address);
    } else {
      address = made.status();
      entry.failure = made.status();
    }
    shared->Reply([accepted = std::move(accepted), address = std::move(address)]() mutable {
      accepted(std::move(address));
    });
  });
  return id;
}

LinkId TransferEngine::Connect(std::string address) {
  const LinkId id = next_link_++;
  shared_->transfer_loop->Post([shared = shared_, id, address = std::move(address)] {
    absl::StatusOr<std::unique_ptr<Link>> link = shared->transport->Connect(address);
    Shared::Entry& entry = shared->links[id];
    if (link.ok()) {
      entry.link = *std::move(link);
    } else {
      entry.failure = link.status();
      LogWarning("kv_link_connect_failed", {{"error", link.status().ToString()}});
    }
  });
  return id;
}

void TransferEngine::Send(LinkId link, TransferTag tag, std::vector<SendPiece> pieces,
                          int64_t unit_bytes, Posted posted, SendDone done) {
  shared_->transfer_loop->Post([shared = shared_, link, tag, pieces = std::move(pieces), unit_bytes,
                                posted = std::move(posted), done = std::move(done)]() mutable {
    Shared::Entry* entry = shared->Find(link);
    if (entry == nullptr || entry->closing || entry->link == nullptr) {
      shared->Reply([posted = std::move(posted), done = std::move(done),
                     status = Shared::Unusable(entry)]() mutable {
        posted(0);
        done(status);
      });
      return;
    }
    ++entry->outstanding;
    auto end = std::make_shared<Shared::SendEnd>();
    end->done = std::move(done);
    entry->link->Send(tag, pieces, [shared, link, end](absl::Status status) {
      end->status = std::move(status);
      shared->SendPartOver(link, *end);
    });
    // Hashed while the wire is busy with it already.
    shared->digests->Add(
        pieces, unit_bytes,
        [shared, link, end, posted = std::move(posted)](uint64_t digest) mutable {
          shared->Reply([posted = std::move(posted), digest]() mutable { posted(digest); });
          shared->SendPartOver(link, *end);
        });
  });
}

void TransferEngine::Receive(LinkId link, TransferTag tag, std::vector<ReceivePiece> pieces,
                             int64_t unit_bytes, ReceiveDone done) {
  shared_->transfer_loop->Post([shared = shared_, link, tag, pieces = std::move(pieces), unit_bytes,
                                done = std::move(done)]() mutable {
    Shared::Entry* entry = shared->Find(link);
    if (entry == nullptr || entry->closing || entry->link == nullptr) {
      shared->Reply([done = std::move(done), status = Shared::Unusable(entry)]() mutable {
        done(status, 0);
      });
      return;
    }
    ++entry->outstanding;
    std::vector<SendPiece> received;
    for (const ReceivePiece& piece : pieces) received.push_back({piece.data, piece.bytes});
    auto end = [shared, link, done = std::move(done)](absl::Status status,
                                                      uint64_t digest) mutable {
      shared->Reply([done = std::move(done), status = std::move(status), digest]() mutable {
        done(std::move(status), digest);
      });
      shared->OperationEnded(link);
    };
    entry->link->Receive(tag, std::move(pieces),
                         [shared, unit_bytes, received = std::move(received),
                          end = std::move(end)](absl::Status status) mutable {
                           if (!status.ok()) return end(std::move(status), 0);
                           shared->digests->Add(received, unit_bytes,
                                                [end = std::move(end)](uint64_t digest) mutable {
                                                  end(absl::OkStatus(), digest);
                                                });
                         });
  });
}

void TransferEngine::Cancel(LinkId link, TransferTag tag) {
  shared_->transfer_loop->Post([shared = shared_, link, tag] {
    Shared::Entry* entry = shared->Find(link);
    if (entry != nullptr && entry->link != nullptr) entry->link->Cancel(tag);
  });
}

void TransferEngine::Close(LinkId link, Closed closed) {
  shared_->transfer_loop->Post([shared = shared_, link, closed = std::move(closed)]() mutable {
    Shared::Entry* entry = shared->Find(link);
    if (entry == nullptr) {
      shared->Reply(std::move(closed));
      return;
    }
    entry->on_closed.push_back(std::move(closed));
    if (entry->closing) return;
    entry->closing = true;
    if (entry->link != nullptr) entry->link->Close();
    entry = shared->Find(link);
    if (entry != nullptr) shared->FinishClose(link, entry);
  });
}

}  // namespace longhaul
