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

// Drops a share of a call on a thread that is not gRPC's; any thread. A call's context holds its
// channel, and with the process's last channel gRPC 1.51 waits for the threads of its callbacks: on
// one of them it would wait for itself, give up, and abort.
void DropAside(std::shared_ptr<void> share);

absl::Status FromGrpc(const grpc::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace longhaul
