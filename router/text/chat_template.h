// A model's chat template: the messages of a request in, the prompt's text out. The template comes
// with the model, so it is untrusted: it runs in an interpreter of our own for the subset of Jinja
// that chat templates use, with bounded time, memory, recursion and output, and can touch nothing
// but the values it is handed. Made once per model; Render may be called on any thread at once.
//
// Semantics are those of Jinja 3.1 as Hugging Face's transformers sets it up: trim_blocks,
// lstrip_blocks, break and continue, an immutable sandbox, raise_exception, strftime_now, and a
// tojson that is json.dumps(ensure_ascii=False). Not there: template inheritance, include, import,
// recursive loops, * and ** arguments, autoescape.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

class ChatTemplate {
 public:
  static constexpr size_t kTemplateBytesMax = 1 << 20;

  // Errors name the line.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(absl::string_view text);
  ~ChatTemplate();

  // `context` holds the template's variables: messages, add_generation_prompt, bos_token,
  // eos_token, and maybe tools, documents and whatever the client adds. At most 64 levels deep.
  // `now_s` is what strftime_now shows: seconds since 1970, in UTC. An error is the request's fault
  // as often as the template's (templates refuse conversations that they cannot write), so it is
  // InvalidArgument.
  absl::StatusOr<std::string> Render(const boost::json::object& context, int64_t now_s) const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::unique_ptr<Parsed> parsed);

  std::unique_ptr<Parsed> parsed_;
};

}  // namespace longhaul
