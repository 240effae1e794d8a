// DirectPrefillClient: a PrefillClient for prefill workers of the same process.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "common/engine/prefill_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

class DirectPrefillClient final : public PrefillClient {
 public:
  struct Worker {
    Loop* loop = nullptr;
    PrefillEndpoint* endpoint = nullptr;  // touched on its loop only
  };

  // `workers` by address. Loops and endpoints outlive the client and the tasks that it posted.
  DirectPrefillClient(Loop* owner_loop, std::map<std::string, Worker> workers)
      : owner_loop_(owner_loop), workers_(std::move(workers)) {}

  std::unique_ptr<PrefillCall> Prefill(const std::string& address, PrefillCommand::Open open,
                                       OnPrefillEvent on_event, OnPrefillDone done) override;

 private:
  Loop* const owner_loop_;
  const std::map<std::string, Worker> workers_;
};

}  // namespace longhaul
