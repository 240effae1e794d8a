// ServedModel: what the router needs of the model to turn text into tokens and back. Immutable once
// the router has started; any thread.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "router/text/tokenizer.h"

namespace longhaul {

struct ServedModel {
  std::string name;  // what clients call it
  std::string system_fingerprint;
  int64_t context_tokens_max = 0;
  int64_t created_s = 0;  // seconds since 1970
  std::unique_ptr<Tokenizer> tokenizer;
  // (messages, chat_template_kwargs, add_generation_prompt) to the prompt's text; null when the
  // model has no chat template.
  std::function<absl::StatusOr<std::string>(const boost::json::array&, const boost::json::object&,
                                            bool)>
      render_chat;
};

}  // namespace longhaul
