#include "common/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace longhaul {
namespace {

bool g_json = !isatty(STDERR_FILENO);
std::string g_component = "longhaul";  // NOLINT: written once by InitLog before other threads start

spdlog::logger& Logger() {
  static spdlog::logger* logger = [] {
    auto* made =
        new spdlog::logger("longhaul", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern(g_json ? "%v" : "%H:%M:%S.%e %^%L%$ %v");
    made->flush_on(spdlog::level::info);
    return made;
  }();
  return *logger;
}

spdlog::level::level_enum SpdLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

void AppendJsonString(std::string& out, absl::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

std::string JsonLine(absl::string_view level, absl::string_view event,
                     std::initializer_list<LogField> fields) {
  std::string line =
      absl::StrFormat(R"({"ts":%.6f,"level":"%s","component":)",
                      static_cast<double>(absl::GetCurrentTimeNanos()) * 1e-9, level);
  AppendJsonString(line, g_component);
  line += ",\"event\":";
  AppendJsonString(line, event);
  for (const LogField& field : fields) {
    line += ',';
    AppendJsonString(line, field.key);
    line += ':';
    if (field.quoted) {
      AppendJsonString(line, field.value);
    } else {
      line += field.value;
    }
  }
  line += '}';
  return line;
}

}  // namespace

void InitLog(absl::string_view component, LogLevel level) {
  g_component = std::string(component);
  Logger().set_level(SpdLevel(level));
}

void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) {
  const spdlog::level::level_enum spd_level = SpdLevel(level);
  if (!Logger().should_log(spd_level)) return;
  std::string line;
  if (g_json) {
    const auto name = spdlog::level::to_string_view(spd_level);
    line = JsonLine({name.data(), name.size()}, event, fields);
  } else {
    line = absl::StrCat(g_component, " ", event);
    for (const LogField& field : fields) absl::StrAppend(&line, " ", field.key, "=", field.value);
  }
  Logger().log(spd_level, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace longhaul
