// RequestObserver: told of what happens to requests for completions, for metrics. Its two makers
// are the real one (router_observer.h) and none in tests. Any thread.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "router/api/completion_response.h"
#include "router/core/dispatcher.h"

namespace longhaul {

class RequestObserver {
 public:
  virtual ~RequestObserver() = default;

  // `endpoint`: "chat_completions" or "completions". One OnOver follows.
  virtual void OnReceived(absl::string_view endpoint) = 0;
  // A choice got its first token, `since_received_us` after its request came in.
  virtual void OnFirstToken(const GenerateStart& start, int64_t since_received_us) = 0;
  // `tokens` more of one choice, which came together `since_last_us` after its previous ones.
  virtual void OnTokens(bool is_long, int64_t tokens, int64_t since_last_us) = 0;
  // The answer is complete, or failed with `status`, or the client went away (Cancelled). `worked`:
  // tokens had been generated.
  virtual void OnOver(absl::string_view endpoint, const Usage& usage, const absl::Status& status,
                      bool worked, int64_t duration_us) = 0;
};

}  // namespace longhaul
