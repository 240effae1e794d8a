// Structured logs: an event name and key-value fields. One JSON object a line when standard error
// is not a terminal, a readable line when it is. Prompts and tokens are never fields. Any thread
// may log.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace longhaul {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

struct LogField {
  LogField(absl::string_view key, absl::string_view value) : key(key), value(value), quoted(true) {}
  LogField(absl::string_view key, const char* value) : key(key), value(value), quoted(true) {}
  LogField(absl::string_view key, const std::string& value)
      : key(key), value(value), quoted(true) {}
  template <typename Number>
  LogField(absl::string_view key, Number value)
      : key(key), value(absl::StrCat(value)), quoted(false) {}

  absl::string_view key;
  std::string value;
  bool quoted;
};

// Called once by a main: `component` ("router", "decode-0") goes into every line; events below
// `level` are dropped.
void InitLog(absl::string_view component, LogLevel level);

void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields = {});

inline void LogInfo(absl::string_view event, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kInfo, event, fields);
}
inline void LogWarning(absl::string_view event, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kWarning, event, fields);
}
inline void LogError(absl::string_view event, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kError, event, fields);
}

}  // namespace longhaul
