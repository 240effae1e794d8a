// RequestParser: bytes in, one whole HTTP/1.x request out, as strictly as RFC 9112 allows. It is
// written here instead of taken from Beast because Beast unfolds obs-fold, accepts repeated equal
// Content-Length fields and skips chunk extensions unread: two parsers on one path that disagree
// about where a request ends are how requests are smuggled, so everything ambiguous is refused and
// the connection is closed.
//
// Pure: no sockets, no clock. Used by one connection on one thread. Memory is bounded by the
// limits. Bytes may arrive in pieces of any size.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "common/http/http_message.h"

namespace longhaul {

struct RequestLimits {
  int64_t header_bytes_max = 32 << 10;       // request line and fields; trailers once more
  int64_t headers_max = 100;                 // fields
  int64_t body_bytes_max = 16 << 20;         // after the transfer coding is removed
  int64_t chunk_extension_bytes_max = 4096;  // of all chunks of a request together
};

// Why a request was refused: an HTTP status, a stable code and a sentence for people.
struct HttpRefusal {
  int status = 0;
  std::string code;
  std::string message;
};

class RequestParser {
 public:
  enum class State {
    kHead,     // request line and fields
    kBody,     // the head is whole
    kDone,     // TakeRequest has a request
    kRefused,  // refusal() says why; the connection can only be closed
  };

  explicit RequestParser(RequestLimits limits) : limits_(limits) {}

  // Consumes bytes from the front up to the end of the request and returns how many. Fewer than all
  // only in kDone or kRefused: the rest belongs to the next request.
  int64_t Feed(absl::string_view bytes);

  State state() const { return state_; }
  // No byte of a request has been seen yet.
  bool idle() const { return state_ == State::kHead && head_bytes_ == 0; }
  const HttpRefusal& refusal() const { return refusal_; }  // kRefused
  // The facts below hold from kBody on.
  bool keep_alive() const { return keep_alive_; }
  bool expects_continue() const { return expects_continue_; }
  int version_minor() const { return version_minor_; }  // HTTP/1.<this>, 0 or 1
  // "" until the request line has been read; also useful for a refused request.
  const std::string& method() const { return request_.method; }

  // Of the body, received so far.
  int64_t body_bytes() const { return static_cast<int64_t>(request_.body.size()); }

  // In kDone: hands the request over (request_id and peer unset) and starts on the next.
  HttpRequest TakeRequest();

 private:
  enum class ChunkPart {
    kSize,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
  };

  int64_t FeedHead(absl::string_view bytes);
  int64_t FeedLength(absl::string_view bytes);
  int64_t FeedChunked(absl::string_view bytes);
  // Collects field lines in lines_ until the empty line; true when it has come.
  bool CollectLines(absl::string_view bytes, int64_t& consumed, absl::string_view what);
  void FinishHead();
  bool ParseRequestLine(absl::string_view line);
  bool ParseTarget(absl::string_view target);
  bool ParseFields(absl::string_view lines, HttpHeaders& headers);
  bool CheckHost();
  bool ReadFraming();
  bool ReadConnection();
  void ChunkSizeDigit(char c);
  void ChunkSizeEnded();
  bool Refuse(int status, absl::string_view code, std::string message);  // always false

  RequestLimits limits_;
  State state_ = State::kHead;
  HttpRefusal refusal_;
  HttpRequest request_;
  std::string lines_;       // the head, or the trailers, as far as they have come
  int64_t head_bytes_ = 0;  // also counts the empty line that may precede a request
  bool keep_alive_ = true;
  bool expects_continue_ = false;
  int version_minor_ = 1;
  bool chunked_ = false;
  int64_t body_left_ = 0;  // of Content-Length, or of the chunk at hand
  ChunkPart part_ = ChunkPart::kSize;
  int chunk_digits_ = 0;
  int64_t extension_bytes_ = 0;
};

}  // namespace longhaul
