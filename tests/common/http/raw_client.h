// RawClient: a blocking TCP client that sends exactly the bytes it is told to, for tests of what a
// well-behaved HTTP library would never send. A read that waits longer than a generous limit fails
// the test instead of hanging it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace longhaul {

struct RawResponse {
  int status = 0;
  std::string head;    // with the status line and the empty line
  std::string body;    // the transfer coding removed
  bool whole = false;  // the body came to its end

  // The value of a header of the answer, "" for none.
  std::string Header(absl::string_view name) const;
};

class RawClient {
 public:
  // `receive_bytes` > 0 sets the size of the kernel's receive buffer, for readers that are slow.
  explicit RawClient(int port, int receive_bytes = 0);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void Send(absl::string_view bytes);
  // Up to and with `mark`; all there was if the connection ended before.
  std::string ReadUntil(absl::string_view mark);
  std::string ReadToEnd();
  // One answer; `head_request` says that no body follows whatever the headers say.
  RawResponse ReadResponse(bool head_request = false);
  // Whether the server has closed (and nothing is left to read). Waits.
  bool AtEnd();

  void CloseWriting();  // FIN
  void Reset();         // RST

 private:
  bool Fill();  // reads once; false at the end of the connection

  int fd_ = -1;
  std::string buffer_;
};

}  // namespace longhaul
