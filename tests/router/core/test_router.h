// A whole router over real HTTP with scripted decode workers and a vocabulary of single bytes, so
// that no model is needed: token b is byte b, token 256 ends a generation.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/runtime/thread_loop.h"
#include "gtest/gtest.h"
#include "router/core/router_app.h"
#include "tests/common/http/raw_client.h"
#include "tests/router/core/fake_worker.h"

namespace longhaul {

inline constexpr int32_t kEndToken = 256;

inline std::string Utf8Of(int code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

inline TokenizerData ByteVocabulary() {
  TokenizerData data;
  int beyond = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    data.tokens.push_back(Utf8Of(printable ? byte : beyond++));
    data.kinds.push_back(TokenKind::kNormal);
  }
  data.tokens.push_back("<|end|>");
  data.kinds.push_back(TokenKind::kControl);
  data.eos_token = kEndToken;
  data.pre_tokenizer = "gpt2";
  data.chat_template =
      "{% for message in messages %}[{{ message.role }}]{{ message.content }}<|end|>{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}";
  return data;
}

class TestRouter {
 public:
  using Attempt = FakeWorker::Attempt;

  // `on_generate` runs on the router's loop for every attempt on any of the `workers`.
  explicit TestRouter(std::function<void(Attempt&)> on_generate, int workers = 1,
                      RouterOptions options = {}) {
    options.served_model_name = "bytes";
    options.http.port = 0;
    options.cluster.stale_after_us = 3'600'000'000;  // the fakes report once
    options.cluster.lost_after_us = 3'600'000'000;
    options.started_s = 1'700'000'000;
    auto app = RouterApp::Start(
        std::move(options), {ByteVocabulary(), 4096, Hash128{}}, [&](std::shared_ptr<Loop> loop) {
          loop_ = loop;
          ClusterMembers members;
          for (int i = 0; i < workers; ++i) {
            const std::string name = absl::StrCat("d", i);
            workers_.push_back(std::make_unique<FakeWorker>(name, "decode", 100 + i));
            workers_.back()->on_generate = on_generate;
            members.decode.push_back(
                {name, name,
                 std::make_unique<FakeWorkerClient>(loop.get(), workers_.back().get())});
          }
          return members;
        });
    EXPECT_TRUE(app.ok()) << app.status();
    app_ = *std::move(app);
    while (!app_->Ready().ok()) OnLoop([] {});
  }

  RouterApp& app() { return *app_; }
  int port() const {
    const std::string address = app_->http_address();
    return std::stoi(address.substr(address.rfind(':') + 1));
  }

  // Runs `task` on the router's loop and waits for it.
  void OnLoop(std::function<void()> task) {
    absl::Notification done;
    loop_->Post([&] {
      task();
      done.Notify();
    });
    done.WaitForNotification();
  }
  // Looks at the workers on the loop until `what` holds.
  void Await(std::function<bool(std::vector<std::unique_ptr<FakeWorker>>&)> what) {
    for (bool holds = false; !holds;) OnLoop([&] { holds = what(workers_); });
  }

  static std::string Request(absl::string_view method, absl::string_view path,
                             absl::string_view body, absl::string_view headers = "") {
    return absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: test\r\n", headers,
                        "Content-Length: ", body.size(), "\r\n\r\n", body);
  }
  RawResponse Ask(absl::string_view method, absl::string_view path, absl::string_view body = "",
                  absl::string_view headers = "") {
    RawClient client(port());
    client.Send(Request(method, path, body, headers));
    return client.ReadResponse();
  }
  RawResponse Post(absl::string_view path, absl::string_view body, absl::string_view headers = "") {
    return Ask("POST", path, body, headers);
  }

 private:
  std::shared_ptr<Loop> loop_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::unique_ptr<RouterApp> app_;  // destroyed first
};

// Sends `text` a token an event, and ends as a model would: with the end token, or for length.
inline void Speak(FakeWorker::Attempt& attempt, const std::string& text) {
  const int64_t room = attempt.request.output_tokens_max();
  const bool cut = static_cast<int64_t>(text.size()) >= room;
  const int64_t bytes = cut ? room : static_cast<int64_t>(text.size());
  for (int64_t i = 0; i < bytes + !cut; ++i) {
    GenerateEvent event;
    const bool end_token = i == bytes;
    auto* token = event.add_tokens();
    token->set_token(end_token ? kEndToken : static_cast<unsigned char>(text[i]));
    token->set_logprob(-0.5f);
    if (attempt.request.sampling().top_logprobs() > 0) {
      auto* top = token->add_top_logprobs();
      top->set_token(token->token());
      top->set_logprob(-0.5f);
    }
    if (i == 0) {
      event.mutable_timing()->set_path("remote");
      event.mutable_timing()->set_prefill_name("p0");
      event.mutable_timing()->set_kv_bytes(4096);
      event.mutable_timing()->set_kv_us(1500);
      event.mutable_timing()->set_cached_tokens(2);
    }
    if (end_token || (cut && i + 1 == bytes)) {
      auto* finished = event.mutable_finished();
      finished->set_reason(end_token ? GenerateEvent::Finished::STOP_TOKEN
                                     : GenerateEvent::Finished::LENGTH);
      if (end_token) finished->set_stop_token(kEndToken);
    }
    attempt.Send(std::move(event));
  }
  attempt.End(absl::OkStatus());
}

inline std::string PromptText(const FakeWorker::Attempt& attempt) {
  std::string text;
  for (int i = 0; i < attempt.request.prompt_tokens(); ++i) {
    const int32_t token = attempt.request.tokens(i);
    text += token == kEndToken ? "#" : std::string(1, static_cast<char>(token));
  }
  return text;
}

}  // namespace longhaul
