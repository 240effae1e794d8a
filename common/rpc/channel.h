// How this house opens gRPC channels, and how it reads their errors.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace longhaul {

// Both ends ping an idle connection; a silent peer is noticed within the sum of the two.
inline constexpr int kRpcPingMs = 5'000;
inline constexpr int kRpcPingTimeoutMs = 5'000;

inline constexpr int kRpcMessageBytesMax = 64 << 20;  // a million prompt tokens take 4 MB

// A channel of its own to "host:port": connects when needed, reconnects within seconds, pings so
// that a peer that was stopped or cut off ends the open calls with Unavailable.
std::shared_ptr<grpc::Channel> OpenChannel(const std::string& address);

absl::Status FromGrpc(const grpc::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace longhaul
