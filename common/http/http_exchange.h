// HttpExchange: the answer to one request, and HttpHandler: who gives it. Doors: the server makes
// exchanges, tests make fakes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/strings/string_view.h"
#include "common/http/http_message.h"

namespace longhaul {

// Calls may come from any thread, but not two at a time: the order of calls is the order of bytes.
// Nothing blocks. The life of an answer is Respond, or StartStream, Write..., End. A call out of
// that order is a bug (LH_CHECK); once the client is gone or Abort was called, calls do nothing.
// Dropping the last reference to an unanswered exchange answers 500; to an unended stream, aborts.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  // The whole answer, with Content-Length. `headers` names neither framing (Content-Length,
  // Transfer-Encoding, Connection) nor x-request-id: the server adds them.
  virtual void Respond(int status, HttpHeaders headers, std::string body) = 0;

  // An answer whose length is not known yet: chunked (to an HTTP/1.0 client until close).
  virtual void StartStream(int status, HttpHeaders headers) = 0;
  // Appends to the stream. False when the client is gone, or reads so slowly that
  // stream_queue_bytes_max would be exceeded, which drops the connection: the caller stops.
  virtual bool Write(std::string bytes) = 0;
  virtual void End() = 0;
  // Sends what was written, then closes the connection without the terminating chunk, so that no
  // client takes the part for the whole.
  virtual void Abort() = 0;

  // Written but not yet taken by the kernel.
  virtual int64_t queued_bytes() const = 0;

  // `gone` runs once, on an edge thread, if the client closes or resets the connection, or is
  // dropped as a slow reader or by Stop, before End, Respond or Abort; also when that happened
  // before this call. It must not block. It is destroyed, run or not, when the exchange is over.
  virtual void OnClientGone(absl::AnyInvocable<void()> gone) = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Called on an edge thread for each whole request; must not block. The answer may be given inside
  // this call or later. A connection has one exchange at a time, so exchanges of different
  // connections may come at once from different threads.
  virtual void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) = 0;
};

// The OpenAI error body: {"error":{"message":...,"type":...,"param":null,"code":...}}. `type`
// follows from the status; `message` is UTF-8.
std::string HttpErrorBody(int status, absl::string_view code, absl::string_view message);

// Responds with HttpErrorBody as application/json.
void RespondError(HttpExchange& exchange, int status, absl::string_view code,
                  absl::string_view message, HttpHeaders headers = {});

}  // namespace longhaul
