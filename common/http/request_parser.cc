#include "common/http/request_parser.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

constexpr absl::string_view kFraming = "invalid_http";
// A claimed length is not yet a reason to hold that much memory.
constexpr int64_t kReserveBytesMax = 1 << 20;

bool IsTokenChar(char c) {  // RFC 9110, 5.6.2
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         absl::string_view("!#$%&'*+-.^_`|~").find(c) != absl::string_view::npos;
}
bool IsToken(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}
bool IsFieldChar(char c) {  // field-vchar, obs-text, SP, HTAB
  const auto byte = static_cast<unsigned char>(c);
  return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
}
bool IsVisible(char c) { return c > 0x20 && c < 0x7f; }

bool IsHostChar(char c) {  // RFC 3986 uri-host and port; user info has no place in Host
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         absl::string_view("-._~%!$&'()*+,;=:[]").find(c) != absl::string_view::npos;
}

absl::string_view TrimOws(absl::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// What a client sent, fit for an error message.
std::string Quoted(absl::string_view text) {
  constexpr size_t kShown = 40;
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kShown)),
                      text.size() > kShown ? "...'" : "'");
}

}  // namespace

int64_t RequestParser::Feed(absl::string_view bytes) {
  int64_t consumed = 0;
  const int64_t size = static_cast<int64_t>(bytes.size());
  while (consumed < size && (state_ == State::kHead || state_ == State::kBody)) {
    const absl::string_view rest = bytes.substr(consumed);
    if (state_ == State::kHead) {
      consumed += FeedHead(rest);
    } else {
      consumed += chunked_ ? FeedChunked(rest) : FeedLength(rest);
    }
  }
  return consumed;
}

HttpRequest RequestParser::TakeRequest() {
  LH_CHECK(state_ == State::kDone, "no whole request to take");
  HttpRequest request = std::move(request_);
  *this = RequestParser(limits_);
  return request;
}

bool RequestParser::Refuse(int status, absl::string_view code, std::string message) {
  state_ = State::kRefused;
  refusal_ = {status, std::string(code), std::move(message)};
  return false;
}

bool RequestParser::CollectLines(absl::string_view bytes, int64_t& consumed,
                                 absl::string_view what) {
  for (const char c : bytes) {
    if (head_bytes_ >= limits_.header_bytes_max) {
      // Without a line end so far it is the target that is too long.
      const bool in_first_line = state_ == State::kHead && lines_.find('\n') == std::string::npos;
      return Refuse(in_first_line ? 414 : 431, in_first_line ? "uri_too_long" : "headers_too_large",
                    absl::StrCat("The ", what, " exceed ", limits_.header_bytes_max,
                                 " bytes. Send fewer or shorter headers."));
    }
    ++consumed;
    ++head_bytes_;
    const bool after_cr = !lines_.empty() && lines_.back() == '\r';
    if (c == '\n' && !after_cr) {
      return Refuse(
          400, kFraming,
          absl::StrCat("Bare LF in the ", what, ": lines end with CR LF (RFC 9112, 2.2)."));
    }
    if (after_cr && c != '\n') {
      return Refuse(
          400, kFraming,
          absl::StrCat("Bare CR in the ", what, ": lines end with CR LF (RFC 9112, 2.2)."));
    }
    lines_ += c;
    if (c != '\n') continue;
    if (lines_ == "\r\n") {
      if (state_ == State::kBody) return true;  // no trailers
      if (head_bytes_ > 2) {
        return Refuse(400, kFraming, "More than one empty line before the request line.");
      }
      lines_.clear();  // RFC 9112, 2.2: one empty line before a request is ignored
      continue;
    }
    if (absl::EndsWith(lines_, "\r\n\r\n")) return true;
  }
  return false;
}

int64_t RequestParser::FeedHead(absl::string_view bytes) {
  int64_t consumed = 0;
  if (CollectLines(bytes, consumed, "request line and headers")) FinishHead();
  return consumed;
}

void RequestParser::FinishHead() {
  const absl::string_view head(lines_);
  const size_t line_end = head.find("\r\n");
  if (!ParseRequestLine(head.substr(0, line_end))) return;
  if (!ParseFields(head.substr(line_end + 2), request_.headers)) return;
  if (!CheckHost() || !ReadConnection() || !ReadFraming()) return;
  lines_.clear();
  state_ = chunked_ || body_left_ > 0 ? State::kBody : State::kDone;
}

bool RequestParser::ParseRequestLine(absl::string_view line) {
  const std::vector<absl::string_view> parts = absl::StrSplit(line, ' ');
  if (parts.size() != 3) {
    return Refuse(400, kFraming,
                  absl::StrCat("The request line ", Quoted(line),
                               " is not 'METHOD target HTTP/1.1' with single spaces."));
  }
  if (!IsToken(parts[0])) {
    return Refuse(400, kFraming, absl::StrCat("The method ", Quoted(parts[0]), " is not a token."));
  }
  const absl::string_view version = parts[2];
  const bool well_formed = version.size() == 8 && absl::StartsWith(version, "HTTP/") &&
                           absl::ascii_isdigit(static_cast<unsigned char>(version[5])) &&
                           version[6] == '.' &&
                           absl::ascii_isdigit(static_cast<unsigned char>(version[7]));
  if (!well_formed) {
    return Refuse(400, kFraming,
                  absl::StrCat("The protocol version ", Quoted(version), " is malformed."));
  }
  if (version[5] != '1') {
    return Refuse(505, "http_version_not_supported",
                  absl::StrCat(version, " is not supported. Use HTTP/1.1."));
  }
  version_minor_ = version[7] == '0' ? 0 : 1;  // RFC 9110, 2.5: a higher minor is served as 1.1
  request_.method = std::string(parts[0]);
  return ParseTarget(parts[1]);
}

bool RequestParser::ParseTarget(absl::string_view target) {
  const std::string shown = Quoted(target);
  if (target.empty() || !std::all_of(target.begin(), target.end(), IsVisible) ||
      target.find('#') != absl::string_view::npos) {
    return Refuse(400, kFraming,
                  absl::StrCat("The request target ", shown,
                               " has characters that a URI may not have; percent-encode them."));
  }
  for (const absl::string_view scheme : {"http://", "https://"}) {
    if (!absl::StartsWithIgnoreCase(target, scheme)) continue;
    target.remove_prefix(scheme.size());
    const size_t path = target.find_first_of("/?");
    const absl::string_view authority = target.substr(0, path);
    if (authority.empty() || !std::all_of(authority.begin(), authority.end(), IsHostChar)) {
      return Refuse(400, kFraming, absl::StrCat("The request target ", shown, " names no host."));
    }
    target = path == absl::string_view::npos ? absl::string_view() : target.substr(path);
    if (target.empty()) target = "/";
    break;
  }
  const bool server_wide = target == "*" && request_.method == "OPTIONS";
  if (target.front() != '/' && target.front() != '?' && !server_wide) {
    return Refuse(400, kFraming,
                  absl::StrCat("The request target ", shown, " is not a path ('/...')."));
  }
  const size_t mark = target.find('?');
  request_.path = mark == 0 ? std::string("/") : std::string(target.substr(0, mark));
  if (mark != absl::string_view::npos) request_.query = std::string(target.substr(mark + 1));
  return true;
}

bool RequestParser::ParseFields(absl::string_view lines, HttpHeaders& headers) {
  while (!absl::StartsWith(lines, "\r\n")) {
    const size_t line_end = lines.find("\r\n");
    const absl::string_view line = lines.substr(0, line_end);
    lines.remove_prefix(line_end + 2);
    if (line.front() == ' ' || line.front() == '\t') {
      return Refuse(400, kFraming,
                    "A header line starts with white space: folded headers are refused "
                    "(RFC 9112, 5.2).");
    }
    const size_t colon = line.find(':');
    const absl::string_view name = line.substr(0, colon);
    if (colon == absl::string_view::npos || !IsToken(name)) {
      return Refuse(400, kFraming,
                    absl::StrCat("The header line ", Quoted(line),
                                 " is not 'Name: value' without white space before the colon."));
    }
    const absl::string_view value = TrimOws(line.substr(colon + 1));
    if (!std::all_of(value.begin(), value.end(), IsFieldChar)) {
      return Refuse(400, kFraming,
                    absl::StrCat("The value of header ", Quoted(name), " has control characters."));
    }
    if (headers.size() >= limits_.headers_max) {
      return Refuse(431, "headers_too_large",
                    absl::StrCat("More than ", limits_.headers_max, " header fields."));
    }
    headers.Add(std::string(name), std::string(value));
  }
  return true;
}

bool RequestParser::CheckHost() {
  int hosts = 0;
  for (const auto& [name, value] : request_.headers) {
    if (!absl::EqualsIgnoreCase(name, "host")) continue;
    ++hosts;
    if (!std::all_of(value.begin(), value.end(), IsHostChar)) {
      return Refuse(400, kFraming, absl::StrCat("The Host ", Quoted(value), " is malformed."));
    }
  }
  if (hosts > 1 || (hosts == 0 && version_minor_ > 0)) {
    return Refuse(400, kFraming,
                  absl::StrCat("The request has ", hosts,
                               " Host fields; HTTP/1.1 asks for exactly one (RFC 9112, 3.2)."));
  }
  return true;
}

bool RequestParser::ReadConnection() {
  keep_alive_ = version_minor_ > 0;
  for (const auto& [name, value] : request_.headers) {
    if (absl::EqualsIgnoreCase(name, "connection")) {
      for (const absl::string_view item : absl::StrSplit(value, ',')) {
        const absl::string_view option = TrimOws(item);
        if (absl::EqualsIgnoreCase(option, "close")) {
          keep_alive_ = false;
          break;
        }
        if (absl::EqualsIgnoreCase(option, "keep-alive")) keep_alive_ = true;
      }
    } else if (absl::EqualsIgnoreCase(name, "expect")) {
      if (!absl::EqualsIgnoreCase(value, "100-continue")) {
        return Refuse(417, "expectation_failed",
                      absl::StrCat("The expectation ", Quoted(value),
                                   " is not known; only 100-continue is."));
      }
      expects_continue_ = version_minor_ > 0;
    }
  }
  return true;
}

bool RequestParser::ReadFraming() {
  int lengths = 0;
  int codings = 0;
  std::string length;
  std::string coding;
  for (const auto& [name, value] : request_.headers) {
    if (absl::EqualsIgnoreCase(name, "content-length")) {
      ++lengths;
      length = value;
    } else if (absl::EqualsIgnoreCase(name, "transfer-encoding")) {
      ++codings;
      coding = value;
    }
  }
  if (codings > 0 && lengths > 0) {
    return Refuse(400, kFraming,
                  "Both Transfer-Encoding and Content-Length: the end of the body is ambiguous "
                  "(RFC 9112, 6.1).");
  }
  if (codings > 0) {
    if (version_minor_ == 0) {
      return Refuse(400, kFraming, "Transfer-Encoding in an HTTP/1.0 request (RFC 9112, 6.1).");
    }
    if (codings == 1 && absl::EqualsIgnoreCase(coding, "chunked")) {
      chunked_ = true;
      return true;
    }
    const std::vector<absl::string_view> list = absl::StrSplit(coding, ',');
    const bool known_end = codings == 1 && list.size() > 1 &&
                           absl::EqualsIgnoreCase(TrimOws(list.back()), "chunked") &&
                           !absl::EqualsIgnoreCase(TrimOws(list[list.size() - 2]), "chunked");
    if (known_end) {
      return Refuse(501, "unsupported_transfer_encoding",
                    absl::StrCat("Transfer-Encoding ", Quoted(coding),
                                 " is not supported. Use chunked alone."));
    }
    return Refuse(400, kFraming,
                  absl::StrCat("Transfer-Encoding ", Quoted(coding), " (", codings,
                               " fields) does not end the body with one 'chunked'."));
  }
  if (lengths == 0) return true;
  const bool digits = !length.empty() && std::all_of(length.begin(), length.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
  if (lengths > 1 || !digits) {
    return Refuse(400, kFraming,
                  absl::StrCat("Content-Length must come once and be a decimal number; got ",
                               lengths, " field(s), the last ", Quoted(length), "."));
  }
  int64_t value = 0;
  for (const char c : length) {
    value = std::min(value * 10 + (c - '0'), limits_.body_bytes_max + 1);
  }
  if (value > limits_.body_bytes_max) {
    return Refuse(413, "body_too_large",
                  absl::StrCat("The body of ", length.substr(0, 20), " bytes exceeds the limit of ",
                               limits_.body_bytes_max, " bytes."));
  }
  body_left_ = value;
  request_.body.reserve(std::min(value, kReserveBytesMax));
  return true;
}

int64_t RequestParser::FeedLength(absl::string_view bytes) {
  const int64_t taken = std::min<int64_t>(body_left_, static_cast<int64_t>(bytes.size()));
  request_.body.append(bytes.data(), taken);
  body_left_ -= taken;
  if (body_left_ == 0) state_ = State::kDone;
  return taken;
}

int64_t RequestParser::FeedChunked(absl::string_view bytes) {
  if (part_ == ChunkPart::kData) {
    const int64_t taken = std::min<int64_t>(body_left_, static_cast<int64_t>(bytes.size()));
    request_.body.append(bytes.data(), taken);
    body_left_ -= taken;
    if (body_left_ == 0) part_ = ChunkPart::kDataCr;
    return taken;
  }
  if (part_ == ChunkPart::kTrailer) {
    int64_t consumed = 0;
    if (CollectLines(bytes, consumed, "trailers")) {
      // Trailers are checked for form and dropped: nothing here may be decided by them.
      HttpHeaders dropped;
      if (lines_ == "\r\n" || ParseFields(lines_, dropped)) state_ = State::kDone;
      lines_.clear();
    }
    return consumed;
  }
  const char c = bytes.front();
  switch (part_) {
    case ChunkPart::kSize:
      ChunkSizeDigit(c);
      break;
    case ChunkPart::kExtension:
      if (c == '\r') {
        part_ = ChunkPart::kSizeLf;
      } else if (!IsFieldChar(c)) {
        Refuse(400, kFraming, "A chunk extension has control characters.");
      } else if (++extension_bytes_ > limits_.chunk_extension_bytes_max) {
        Refuse(
            400, kFraming,
            absl::StrCat("Chunk extensions exceed ", limits_.chunk_extension_bytes_max, " bytes."));
      }
      break;
    case ChunkPart::kSizeLf:
      if (c == '\n') {
        ChunkSizeEnded();
      } else {
        Refuse(400, kFraming, "Bare CR after a chunk size.");
      }
      break;
    case ChunkPart::kDataCr:
    case ChunkPart::kDataLf:
      if (c != (part_ == ChunkPart::kDataCr ? '\r' : '\n')) {
        Refuse(400, kFraming, "A chunk's data is not followed by CR LF.");
        break;
      }
      part_ = part_ == ChunkPart::kDataCr ? ChunkPart::kDataLf : ChunkPart::kSize;
      break;
    case ChunkPart::kData:
    case ChunkPart::kTrailer:
      break;
  }
  return 1;
}

void RequestParser::ChunkSizeDigit(char c) {
  constexpr int kDigitsMax = 15;  // keeps the sum below 2^60
  const int digit = HexDigit(c);
  if (digit >= 0 && chunk_digits_ < kDigitsMax) {
    body_left_ = body_left_ * 16 + digit;
    ++chunk_digits_;
  } else if (chunk_digits_ > 0 && c == '\r') {
    part_ = ChunkPart::kSizeLf;
  } else if (chunk_digits_ > 0 && c == ';') {
    part_ = ChunkPart::kExtension;
  } else {
    Refuse(400, kFraming,
           absl::StrCat("A chunk size must be 1 to ", kDigitsMax,
                        " hexadecimal digits, then CR LF or ';'; got ",
                        Quoted(absl::string_view(&c, 1)), " after ", chunk_digits_, " digits."));
  }
}

void RequestParser::ChunkSizeEnded() {
  chunk_digits_ = 0;
  if (body_left_ == 0) {
    part_ = ChunkPart::kTrailer;
    head_bytes_ = 0;
    return;
  }
  const int64_t total = static_cast<int64_t>(request_.body.size()) + body_left_;
  if (total > limits_.body_bytes_max) {
    Refuse(413, "body_too_large",
           absl::StrCat("The chunked body of at least ", total, " bytes exceeds the limit of ",
                        limits_.body_bytes_max, " bytes."));
    return;
  }
  part_ = ChunkPart::kData;
}

}  // namespace longhaul
