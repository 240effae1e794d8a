// The bytes of an answer's status line and headers. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "common/http/http_message.h"

namespace longhaul {

struct ResponseFacts {
  int status = 200;
  int64_t content_length = -1;  // -1: no Content-Length
  bool chunked = false;
  bool close = false;             // "Connection: close"
  bool keep_alive_named = false;  // HTTP/1.0 clients must be told
  absl::string_view request_id;   // "" for none
};

// Control characters in header values (they would end the line) become spaces.
std::string ResponseHead(const ResponseFacts& facts, const HttpHeaders& headers);

// Whether an answer of this status to this method carries a body at all (RFC 9112, 6.3).
bool HasBody(absl::string_view method, int status);

// The client's own id when it is 1 to 128 characters of [A-Za-z0-9._:-], else a random one.
std::string ChooseRequestId(const HttpHeaders& headers);

}  // namespace longhaul
