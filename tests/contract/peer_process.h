// PeerProcess: the other end of a link in a process of its own (this binary, run again with
// --peer), which tests stop, continue and kill.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/contract/peer_wire.h"

namespace longhaul {

class PeerProcess {
 public:
  explicit PeerProcess(const PeerWire& wire);
  ~PeerProcess();  // kills it
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  std::string Accept();                      // the address of a new receiving link
  void Connect(const std::string& address);  // makes its sending link
  // Starts `count` operations, tags from `first`, each of `bytes` (whole MiB) in the wire's kind of
  // memory; each byte sent is its tag.
  void Send(int first, int count, int64_t bytes);
  void Receive(int first, int count, int64_t bytes);
  // Returns when so many operations in all have ended.
  void AwaitEnded(int count);
  // Whether every byte of all its buffers is `value`; when nothing is under way.
  bool Holds(std::byte value);
  void Ping();

  void Stop();
  void Continue();
  void Kill();

 private:
  std::string Ask(const std::string& command);

  pid_t pid_ = -1;
  int control_fd_ = -1;
};

// The main function of the peer.
int RunPeer(int argc, char** argv);

}  // namespace longhaul
