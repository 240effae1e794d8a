// Server-sent events: how one event is framed (WHATWG HTML, 9.2). The text of an event must be free
// of line ends, which JSON without pretty-printing is.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/http/http_message.h"

namespace longhaul {

inline std::string SseEvent(absl::string_view data) { return absl::StrCat("data: ", data, "\n\n"); }

// How OpenAI streams end.
inline std::string SseDone() { return "data: [DONE]\n\n"; }

// A line that clients ignore; keeps proxies from closing a quiet stream.
inline std::string SseComment(absl::string_view text) { return absl::StrCat(": ", text, "\n\n"); }

// X-Accel-Buffering asks nginx to pass events on as they come.
inline HttpHeaders SseHeaders() {
  return {{"content-type", "text/event-stream; charset=utf-8"},
          {"cache-control", "no-cache"},
          {"x-accel-buffering", "no"}};
}

}  // namespace longhaul
