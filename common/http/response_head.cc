#include "common/http/response_head.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/http/http_exchange.h"

namespace longhaul {
namespace {

absl::string_view Reason(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

absl::string_view ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

std::string JsonString(absl::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      absl::StrAppend(&out, "\\", absl::string_view(&c, 1));
    } else if (byte < 0x20) {
      absl::StrAppend(&out, "\\u", absl::Hex(byte, absl::kZeroPad4));
    } else {
      out += c;
    }
  }
  return out += '"';
}

}  // namespace

std::string ResponseHead(const ResponseFacts& facts, const HttpHeaders& headers) {
  std::string head = absl::StrCat("HTTP/1.1 ", facts.status, " ", Reason(facts.status), "\r\n");
  for (const auto& [name, value] : headers) {
    std::string line = value;
    std::replace_if(
        line.begin(), line.end(),
        [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)) && c != '\t'; },
        ' ');
    absl::StrAppend(&head, name, ": ", line, "\r\n");
  }
  if (!facts.request_id.empty()) absl::StrAppend(&head, "x-request-id: ", facts.request_id, "\r\n");
  if (facts.content_length >= 0) {
    absl::StrAppend(&head, "content-length: ", facts.content_length, "\r\n");
  }
  if (facts.chunked) absl::StrAppend(&head, "transfer-encoding: chunked\r\n");
  if (facts.close) {
    absl::StrAppend(&head, "connection: close\r\n");
  } else if (facts.keep_alive_named) {
    absl::StrAppend(&head, "connection: keep-alive\r\n");
  }
  absl::StrAppend(&head, "\r\n");
  return head;
}

bool HasBody(absl::string_view method, int status) {
  return method != "HEAD" && status >= 200 && status != 204 && status != 304;
}

std::string ChooseRequestId(const HttpHeaders& headers) {
  constexpr size_t kLengthMax = 128;
  const absl::string_view sent = headers.Get("x-request-id");
  const bool well_formed =
      !sent.empty() && sent.size() <= kLengthMax &&
      std::all_of(sent.begin(), sent.end(), [](char c) {
        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("._:-", c);
      });
  if (well_formed) return std::string(sent);
  return absl::StrCat("req-", absl::Hex(RandomId(), absl::kZeroPad16));
}

std::string HttpErrorBody(int status, absl::string_view code, absl::string_view message) {
  return absl::StrCat(R"({"error":{"message":)", JsonString(message), R"(,"type":")",
                      ErrorType(status), R"(","param":null,"code":)", JsonString(code), "}}");
}

void RespondError(HttpExchange& exchange, int status, absl::string_view code,
                  absl::string_view message, HttpHeaders headers) {
  headers.Add("content-type", "application/json");
  exchange.Respond(status, std::move(headers), HttpErrorBody(status, code, message));
}

}  // namespace longhaul
