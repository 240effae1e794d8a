// RouterMetricsFeed: what the router tells Prometheus.
#pragma once

#include <string>

#include "router/core/reply.h"

namespace longhaul {

class RouterMetricsFeed final : public ReplyObserver {
 public:
  void OnFirstToken(const PreparedRequest&, const GenerateStart&) override {}
  void OnTokens(int64_t, int64_t) override {}
  void OnOver(const PreparedRequest&, const Usage&, const absl::Status&, int64_t) override {}
  std::string Text() { return ""; }
};

}  // namespace longhaul
