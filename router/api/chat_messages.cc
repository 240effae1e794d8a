#include "router/api/chat_messages.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "router/api/error.h"
#include "router/api/json_reader.h"

namespace longhaul {
namespace {

namespace json = boost::json;

absl::Status CheckRole(const json::object& message, const std::string& path, json::object* out) {
  const std::string param = absl::StrCat(path, ".role");
  const json::value* role = message.if_contains("role");
  if (role == nullptr || !role->is_string()) {
    return InvalidFieldError(param, "must be a string");
  }
  const absl::string_view name = View(role->get_string());
  if (name == "developer") {
    (*out)["role"] = "system";
    return absl::OkStatus();
  }
  if (name != "system" && name != "user" && name != "assistant" && name != "tool") {
    return InvalidFieldError(
        param, absl::StrCat("must be one of system, developer, user, assistant, tool; got '",
                            name.substr(0, 64), "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> JoinTextParts(const json::array& parts, const std::string& param) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part_param = absl::StrCat(param, "[", i, "]");
    const json::object* part = parts[i].if_object();
    if (part == nullptr) {
      return InvalidFieldError(part_param,
                               absl::StrCat("must be an object, not ", JsonKindName(parts[i])));
    }
    const json::value* type = part->if_contains("type");
    if (type == nullptr || !type->is_string()) {
      return InvalidFieldError(absl::StrCat(part_param, ".type"), "must be a string");
    }
    if (type->get_string() != "text") {
      return UnsupportedFieldError(
          absl::StrCat(part_param, ".type"),
          absl::StrCat("is '", View(type->get_string()).substr(0, 64),
                       "', but this server takes content parts of type 'text' only"));
    }
    const json::value* value = part->if_contains("text");
    if (value == nullptr || !value->is_string()) {
      return InvalidFieldError(absl::StrCat(part_param, ".text"), "must be a string");
    }
    if (i > 0) text.push_back('\n');
    absl::StrAppend(&text, View(value->get_string()));
  }
  return text;
}

absl::Status ReadContent(const json::object& message, const std::string& path, json::object* out) {
  const std::string param = absl::StrCat(path, ".content");
  const json::value* content = message.if_contains("content");
  if (content == nullptr || content->is_null()) {
    const json::value* calls = message.if_contains("tool_calls");
    if (calls == nullptr || calls->is_null()) {
      return InvalidFieldError(param, "must be a string or an array of text parts, not null");
    }
    (*out)["content"] = nullptr;
    return absl::OkStatus();
  }
  if (content->is_string()) return absl::OkStatus();
  if (!content->is_array()) {
    return InvalidFieldError(param, absl::StrCat("must be a string or an array of text parts, not ",
                                                 JsonKindName(*content)));
  }
  LH_ASSIGN_OR_RETURN(std::string text, JoinTextParts(content->get_array(), param));
  (*out)["content"] = text;
  return absl::OkStatus();
}

// Clients send a call's arguments as JSON in a string; templates iterate over them or write them
// with `tojson`.
absl::Status ReadToolCalls(const std::string& path, int json_depth_max, json::object* out) {
  json::value* calls = out->if_contains("tool_calls");
  if (calls == nullptr || calls->is_null()) return absl::OkStatus();
  const std::string param = absl::StrCat(path, ".tool_calls");
  if (!calls->is_array()) {
    return InvalidFieldError(param, absl::StrCat("must be an array, not ", JsonKindName(*calls)));
  }
  size_t index = 0;
  for (json::value& call : calls->get_array()) {
    const std::string call_param = absl::StrCat(param, "[", index++, "].function");
    json::object* fields = call.if_object();
    json::value* function = fields == nullptr ? nullptr : fields->if_contains("function");
    if (function == nullptr || !function->is_object()) {
      return InvalidFieldError(call_param, "must be an object");
    }
    const json::value* name = function->get_object().if_contains("name");
    if (name == nullptr || !name->is_string()) {
      return InvalidFieldError(absl::StrCat(call_param, ".name"), "must be a string");
    }
    json::value* arguments = function->get_object().if_contains("arguments");
    if (arguments == nullptr || !arguments->is_string()) continue;
    absl::StatusOr<json::value> parsed =
        ParseJsonObject(View(arguments->get_string()), json_depth_max, {});
    if (!parsed.ok()) {
      return InvalidFieldError(
          absl::StrCat(call_param, ".arguments"),
          absl::StrCat("must be a JSON object in a string: ", parsed.status().message()));
    }
    *arguments = *std::move(parsed);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<json::array> ReadChatMessages(const json::value& value, int json_depth_max) {
  if (!value.is_array()) {
    return InvalidFieldError("messages",
                             absl::StrCat("must be an array, not ", JsonKindName(value)));
  }
  if (value.get_array().empty()) {
    return InvalidFieldError("messages", "must hold at least one message, got 0");
  }
  json::array messages;
  messages.reserve(value.get_array().size());
  for (const json::value& item : value.get_array()) {
    const std::string path = absl::StrCat("messages[", messages.size(), "]");
    if (!item.is_object()) {
      return InvalidFieldError(path, absl::StrCat("must be an object, not ", JsonKindName(item)));
    }
    const json::object& message = item.get_object();
    // The storage is named: a copy would otherwise stay in the request's.
    json::object out(message, json::storage_ptr());
    LH_RETURN_IF_ERROR(CheckRole(message, path, &out));
    LH_RETURN_IF_ERROR(ReadContent(message, path, &out));
    LH_RETURN_IF_ERROR(ReadToolCalls(path, json_depth_max, &out));
    messages.push_back(std::move(out));
  }
  return messages;
}

}  // namespace longhaul
