// LinkPool: the receiving ends of a decode worker's links, one for each prefill worker, made when
// first needed and kept. Lives on the worker's Loop.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "kv_transfer/transfer_engine.h"

namespace longhaul {

class LinkPool {
 public:
  struct PeerLink {
    LinkId link = 0;
    std::string address;  // for the prefill worker to connect to
  };
  using Ready = absl::AnyInvocable<void(absl::StatusOr<PeerLink>)>;

  // `engine` outlives the pool.
  explicit LinkPool(TransferEngine* engine) : engine_(engine) {}

  // The link for the prefill worker at `peer`. `ready` may come from inside the call.
  void Get(const std::string& peer, Ready ready);

  // Fences a link: all its operations end, and the next Get makes a new one. For a peer that is
  // gone or silent.
  void Retire(LinkId link);

  int64_t retired() const { return retired_; }

 private:
  struct Entry {
    PeerLink made;
    bool ready = false;
    std::vector<Ready> waiting;
  };

  TransferEngine* const engine_;
  std::map<std::string, Entry> links_;
  int64_t retired_ = 0;
};

}  // namespace longhaul
