// Reply: one client's request from its first token to the last byte of its answer. It owns the
// generations of all choices, turns tokens into text, and writes a whole answer or a stream of
// server-sent events. Lives on the Loop; the exchange is touched there only.
//
// A stream's status and headers go out with its first token, so that an early failure still has its
// status. A failure after that is an error event, then the connection is cut so that no client
// takes the part for the whole.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/http/http_exchange.h"
#include "router/api/completion_response.h"
#include "router/core/dispatcher.h"
#include "router/core/prepared_request.h"
#include "router/core/request_observer.h"
#include "router/core/served_model.h"
#include "router/text/detokenizer.h"

namespace longhaul {

class Reply {
 public:
  // `over` is called once, when nothing more will happen, from inside the reply: destroy it later.
  Reply(Loop* loop, Dispatcher* dispatcher, const ServedModel* model, RequestObserver* observer,
        PreparedRequest prepared, int64_t created_s, std::shared_ptr<HttpExchange> exchange,
        absl::AnyInvocable<void()> over);
  ~Reply();

  void Start();
  // Nobody reads the answer any more: cancels all work.
  void ClientGone();

 private:
  class Choice;

  void OnStart(const GenerateStart& start, int64_t prompt);
  void Send(ChoicePiece piece);
  void ChoiceEnded();
  void Fail(const absl::Status& status);
  void Over(const absl::Status& status);
  void StartStream();
  bool Write(std::string bytes);
  Usage UsageSoFar() const;

  Loop* const loop_;
  Dispatcher* const dispatcher_;
  const ServedModel* const model_;
  RequestObserver* const observer_;
  const PreparedRequest prepared_;
  const std::shared_ptr<HttpExchange> exchange_;
  absl::AnyInvocable<void()> over_;
  ReplyHead head_;
  HttpHeaders headers_;  // x-longhaul-*
  std::vector<std::unique_ptr<Choice>> choices_;
  std::vector<ChoicePiece> whole_;      // by choice, when not streaming
  std::vector<int64_t> cached_tokens_;  // by prompt
  int64_t completion_tokens_ = 0;
  int64_t choices_left_ = 0;
  bool answered_ = false;   // the first choice has started
  bool streaming_ = false;  // the stream's head is out
  bool is_over_ = false;
};

}  // namespace longhaul
