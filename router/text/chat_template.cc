#include "router/text/chat_template.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "router/text/jinja_interpreter.h"
#include "router/text/jinja_parser.h"

namespace longhaul {

struct ChatTemplate::Parsed {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Parsed> parsed) : parsed_(std::move(parsed)) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(absl::string_view text) {
  if (text.size() > kTemplateBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("the chat template has ", text.size(),
                                                   " bytes, the limit is ", kTemplateBytesMax));
  }
  auto parsed = std::make_unique<Parsed>();
  LH_ASSIGN_OR_RETURN(parsed->body, jinja::ParseTemplate(text));
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(parsed)));
}

absl::StatusOr<std::string> ChatTemplate::Render(const boost::json::object& context,
                                                 int64_t now_s) const {
  jinja::Runtime runtime(jinja::RenderLimits(), now_s);
  jinja::Interpreter interpreter(runtime);
  for (const boost::json::key_value_pair& entry : context) {
    interpreter.SetVariable(absl::string_view(entry.key().data(), entry.key().size()),
                            jinja::FromJson(entry.value()));
  }
  std::string output = interpreter.Run(parsed_->body);
  LH_RETURN_IF_ERROR(runtime.status());
  return output;
}

}  // namespace longhaul
