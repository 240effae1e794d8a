#include "router/core/dispatcher.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "router/api/error.h"
#include "router/core/generate_message.h"
#include "router/policy/prefix_index.h"

namespace longhaul {
namespace {

int64_t CeilSeconds(int64_t us) { return (us + 999'999) / 1'000'000; }

// The worker or the way to it is gone; nothing is wrong with the request.
bool IsLoss(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) || absl::IsCancelled(status);
}

}  // namespace

struct Dispatcher::Running {
  uint64_t id = 0;
  GenerateCall call;
  GenerateListener* listener = nullptr;
  int64_t submitted_us = 0;
  int64_t output_tokens_max = 0;  // resolved at the first attempt
  std::vector<int32_t> emitted;
  bool started = false;

  int attempt = 0;  // callbacks of an older one change nothing
  std::vector<uint64_t> avoid;
  bool full_elsewhere = false;  // one worker said ResourceExhausted already
  int64_t replay_until_us = 0;  // while waiting for a worker to replay on
  Loop::TimerId timer = 0;      // replay poll
  Loop::TimerId deadline_timer = 0;

  // Of the attempt under way.
  uint64_t incarnation = 0;
  std::string decode_name;
  bool is_long = false;
  std::optional<GenerateEnd> end;  // said by the worker; `done` follows
  std::unique_ptr<Cluster::Lease> lease;
  std::unique_ptr<WorkerCall> worker_call;
};

class Dispatcher::Handle final : public Generation {
 public:
  Handle(std::shared_ptr<Dispatcher*> dispatcher, uint64_t id)
      : dispatcher_(std::move(dispatcher)), id_(id) {}
  ~Handle() override {
    if (*dispatcher_ != nullptr) (*dispatcher_)->Cancel(id_);
  }

 private:
  const std::shared_ptr<Dispatcher*> dispatcher_;
  const uint64_t id_;
};

Dispatcher::Dispatcher(Loop* loop, Cluster* cluster, Policy* policy, DispatcherOptions options)
    : loop_(loop),
      cluster_(cluster),
      policy_(policy),
      options_(options),
      budget_(options.retry_share, options.retry_reserve),
      self_(std::make_shared<Dispatcher*>(this)) {
  cluster_->OnLost([this](uint64_t incarnation) { WorkerLost(incarnation); });
}

Dispatcher::~Dispatcher() {
  *self_ = nullptr;
  cluster_->OnLost(nullptr);
  for (auto& [id, running] : running_) {
    loop_->CancelTimer(running->timer);
    loop_->CancelTimer(running->deadline_timer);
  }
}

std::unique_ptr<Generation> Dispatcher::Submit(GenerateCall call, GenerateListener* listener) {
  LH_CHECK(!call.prompt.empty(), "an empty prompt is refused at the edge");
  const uint64_t id = next_id_++;
  auto running = std::make_unique<Running>();
  running->id = id;
  running->listener = listener;
  running->submitted_us = loop_->NowUs();
  if (call.deadline_us > 0) {
    running->deadline_timer = loop_->PostAfter(call.deadline_us, [this, self = self_, id] {
      if (*self == nullptr) return;
      Running* late = Find(id);
      if (late == nullptr) return;
      Fail(id, absl::DeadlineExceededError(
                   absl::StrCat("no whole answer within ", late->call.deadline_us / 1000, " ms")));
    });
  }
  running->call = std::move(call);
  running_[id] = std::move(running);
  ++stats_.requests;
  stats_.requests_now = static_cast<int64_t>(running_.size());
  budget_.Earn();
  loop_->Post([this, self = self_, id] {
    if (*self != nullptr) Attempt(id);
  });
  return std::make_unique<Handle>(self_, id);
}

Dispatcher::Running* Dispatcher::Find(uint64_t id) {
  const auto found = running_.find(id);
  return found == running_.end() ? nullptr : found->second.get();
}

void Dispatcher::Attempt(uint64_t id) {
  Running* running = Find(id);
  if (running == nullptr) return;
  running->timer = 0;
  const ClusterView& view = cluster_->View();
  const GenerateCall& call = running->call;
  const int64_t prompt_tokens = static_cast<int64_t>(call.prompt.size());

  if (running->attempt == 0) {
    if (static_cast<int64_t>(running_.size()) > options_.requests_max) {
      return Refuse(id, {Refusal::Reason::kOverloaded,
                         absl::StrCat("this router has ", options_.requests_max,
                                      " requests under way, its limit"),
                         1'000'000, 0});
    }
    int64_t room = options_.context_tokens_max;
    int64_t longest = 0;
    for (const WorkerView& worker : view.decode) {
      if (worker.ready) longest = std::max(longest, worker.sequence_tokens_max());
    }
    if (longest > 0) room = room > 0 ? std::min(room, longest) : longest;
    const int64_t asked = call.output_tokens_max.value_or(1);
    if (room > 0 && prompt_tokens + asked > room) {
      ++stats_.refused_too_long;
      // A prompt that leaves no room is too long by itself, whatever output was asked for.
      return Fail(id, ContextLengthError(prompt_tokens, prompt_tokens < room ? asked : 0, room));
    }
    running->output_tokens_max =
        call.output_tokens_max.value_or(std::max<int64_t>(room - prompt_tokens, 1));
  }

  std::vector<int32_t> tokens;
  absl::Span<const int32_t> held = call.prompt;
  if (!running->emitted.empty()) {
    tokens.reserve(call.prompt.size() + running->emitted.size());
    tokens = call.prompt;
    tokens.insert(tokens.end(), running->emitted.begin(), running->emitted.end());
    held = tokens;
  }
  int block_tokens = 16;
  if (!view.decode.empty()) block_tokens = view.decode[0].block_tokens;
  const std::vector<Hash128> chain = ChainOf(held, block_tokens, call.cache_salt);
  RequestFacts facts;
  facts.prompt_tokens = static_cast<int64_t>(held.size());
  facts.output_tokens_max =
      running->output_tokens_max - static_cast<int64_t>(running->emitted.size());
  facts.block_tokens = block_tokens;
  facts.prefix_chain = chain;
  facts.avoid = running->avoid;
  const int64_t now_us = loop_->NowUs();
  auto choice = policy_->Choose(facts, view, now_us);
  if (auto* refusal = std::get_if<Refusal>(&choice)) {
    const bool may_come = refusal->reason == Refusal::Reason::kNoWorker ||
                          refusal->reason == Refusal::Reason::kOverloaded;
    if (may_come && now_us < running->replay_until_us) {
      running->timer = loop_->PostAfter(options_.replay_poll_us, [this, self = self_, id] {
        if (*self != nullptr) Attempt(id);
      });
      return;
    }
    return Refuse(id, *refusal);
  }
  const Placement& placement = std::get<Placement>(choice);

  const int attempt = ++running->attempt;
  ++stats_.placed;
  if (attempt > 1) ++stats_.replays;
  running->incarnation = view.decode[placement.decode].incarnation;
  running->decode_name = view.decode[placement.decode].name;
  running->is_long = placement.is_long;
  running->end.reset();
  running->lease = cluster_->Reserve(placement, facts.prompt_tokens + facts.output_tokens_max);
  running->worker_call = cluster_->client(placement.decode)
                             ->Generate(
                                 MakeRequest(*running, placement, view),
                                 [this, self = self_, id, attempt](GenerateEvent event) {
                                   if (*self != nullptr) OnEvent(id, attempt, event);
                                 },
                                 [this, self = self_, id, attempt](absl::Status status) {
                                   if (*self != nullptr) OnDone(id, attempt, status);
                                 });
  // A long prompt takes a while to be noted: not before it is on its way.
  policy_->Placed(facts, view, placement, now_us);
}

GenerateRequest Dispatcher::MakeRequest(const Running& running, const Placement& placement,
                                        const ClusterView& view) const {
  const GenerateCall& call = running.call;
  GenerateRequest request;
  request.set_request_id(call.request_id);
  auto* tokens = request.mutable_tokens();
  tokens->Reserve(static_cast<int>(call.prompt.size() + running.emitted.size()));
  tokens->Add(call.prompt.begin(), call.prompt.end());
  tokens->Add(running.emitted.begin(), running.emitted.end());
  request.set_prompt_tokens(static_cast<int32_t>(call.prompt.size()));
  request.set_output_tokens_max(static_cast<int32_t>(running.output_tokens_max));
  request.set_output_tokens_min(static_cast<int32_t>(call.output_tokens_min));
  request.set_ignore_eos(call.ignore_eos);
  request.mutable_stop_tokens()->Add(call.stop_tokens.begin(), call.stop_tokens.end());
  ToProto(call.sampling, *request.mutable_sampling());
  for (const int i : placement.prefill) {
    request.add_prefill_addresses(view.prefill[i].address);
    request.add_prefill_names(view.prefill[i].name);
  }
  if (call.deadline_us > 0) {
    const int64_t spent_us = loop_->NowUs() - running.submitted_us;
    request.set_deadline_us(std::max<int64_t>(call.deadline_us - spent_us, 1));
  }
  request.set_length_class(placement.is_long ? "long" : "short");
  request.set_cache_salt(call.cache_salt);
  return request;
}

void Dispatcher::Refuse(uint64_t id, const Refusal& refusal) {
  Running* running = Find(id);
  const int64_t retry_after_s = CeilSeconds(refusal.retry_after_us);
  switch (refusal.reason) {
    case Refusal::Reason::kNoWorker:
      ++stats_.refused_no_worker;
      return Fail(id, NoWorkerError(refusal.message, retry_after_s));
    case Refusal::Reason::kOverloaded:
      ++stats_.refused_overloaded;
      return Fail(id, OverloadedError(refusal.message, retry_after_s));
    case Refusal::Reason::kNeverFits:
      ++stats_.refused_too_long;
      return Fail(id, ContextLengthError(static_cast<int64_t>(running->call.prompt.size()),
                                         running->output_tokens_max, refusal.sequence_tokens_max));
  }
}

void Dispatcher::OnEvent(uint64_t id, int attempt, const GenerateEvent& event) {
  Running* running = Find(id);
  if (running == nullptr || running->attempt != attempt || running->end.has_value()) return;
  if (event.has_finished()) {
    GenerateEnd end;
    end.reason = event.finished().reason() == GenerateEvent::Finished::STOP_TOKEN
                     ? GenerateEnd::Reason::kStopToken
                     : GenerateEnd::Reason::kLength;
    if (end.reason == GenerateEnd::Reason::kStopToken)
      end.stop_token = event.finished().stop_token();
    end.attempts = attempt;
    running->end = end;
  }
  const int64_t room = running->output_tokens_max - static_cast<int64_t>(running->emitted.size());
  if (event.tokens_size() > room) {
    return AttemptFailed(id,
                         absl::AbortedError(absl::StrCat(running->decode_name, " sent more than ",
                                                         running->output_tokens_max, " tokens")));
  }
  if (event.tokens_size() == 0 && !event.has_finished()) return;
  running->lease->PromptDone();
  // The listener may cancel in any of the calls: look again after each.
  if (!running->started) {
    running->started = true;
    GenerateStart start = StartOf(event.timing());
    start.decode_name = running->decode_name;
    start.is_long = running->is_long;
    start.ttft_us = loop_->NowUs() - running->submitted_us;
    start.attempts = attempt;
    running->listener->OnStart(start);
    running = Find(id);
    if (running == nullptr) return;
  }
  if (event.tokens_size() > 0) {
    std::vector<SampledToken> sampled;
    sampled.reserve(event.tokens_size());
    for (const auto& token : event.tokens()) {
      sampled.push_back(FromProto(token));
      running->emitted.push_back(token.token());
    }
    const bool ends_with_stop = running->end.has_value() &&
                                running->end->reason == GenerateEnd::Reason::kStopToken &&
                                sampled.back().token == running->end->stop_token;
    running->listener->OnTokens(sampled, ends_with_stop);
  }
}

void Dispatcher::OnDone(uint64_t id, int attempt, const absl::Status& status) {
  Running* running = Find(id);
  if (running == nullptr || running->attempt != attempt) return;
  // The worker said that it was done: how its stream ended after that is no matter.
  if (running->end.has_value()) return End(id, *running->end);
  if (status.ok()) {
    return AttemptFailed(id, absl::AbortedError(absl::StrCat(running->decode_name,
                                                             " ended the stream without an end")));
  }
  AttemptFailed(id, status);
}

void Dispatcher::AttemptFailed(uint64_t id, const absl::Status& status) {
  Running* running = Find(id);
  running->worker_call.reset();
  running->lease.reset();
  const bool full = absl::IsResourceExhausted(status);
  const bool again = IsLoss(status) || (full && !running->full_elsewhere);
  if (!again) {
    return Fail(id, full ? OverloadedError(status.message(), 1) : status);
  }
  running->full_elsewhere |= full;
  running->avoid.push_back(running->incarnation);
  // Only the word of the end was lost.
  if (static_cast<int64_t>(running->emitted.size()) >= running->output_tokens_max) {
    return End(id, {GenerateEnd::Reason::kLength, -1, running->attempt});
  }
  if (full && !absl::c_any_of(cluster_->View().decode, [&](const WorkerView& worker) {
        return worker.ready && worker.incarnation != running->incarnation;
      })) {
    return Fail(id, OverloadedError(status.message(), 1));
  }
  const auto gave_up = [&](absl::string_view why) {
    return NoWorkerError(absl::StrCat("worker ", running->decode_name, " was lost (",
                                      status.message(), ") and ", why),
                         1);
  };
  if (running->attempt >= options_.attempts_max) {
    return Fail(id, gave_up(absl::StrCat("so were those of all ", running->attempt, " attempts")));
  }
  if (!budget_.Spend()) {
    ++stats_.replays_unaffordable;
    return Fail(id, gave_up("too many requests are being replayed"));
  }
  LogWarning("replay", {{"request", running->call.request_id},
                        {"lost", running->decode_name},
                        {"emitted_tokens", running->emitted.size()},
                        {"attempt", running->attempt},
                        {"why", status.message()}});
  running->replay_until_us = loop_->NowUs() + options_.replay_wait_us;
  running->timer = loop_->PostAfter(0, [this, self = self_, id] {
    if (*self != nullptr) Attempt(id);
  });
}

void Dispatcher::WorkerLost(uint64_t incarnation) {
  std::vector<uint64_t> orphans;
  for (const auto& [id, running] : running_) {
    if (running->incarnation == incarnation && running->worker_call != nullptr) {
      orphans.push_back(id);
    }
  }
  std::sort(orphans.begin(), orphans.end());
  for (const uint64_t id : orphans) {
    Running* running = Find(id);
    if (running == nullptr) continue;
    if (running->end.has_value()) {
      End(id, *running->end);
    } else {
      AttemptFailed(id, absl::UnavailableError("restarted or silent"));
    }
  }
}

std::unique_ptr<Dispatcher::Running> Dispatcher::Take(uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return nullptr;
  auto running = std::move(found->second);
  running_.erase(found);
  stats_.requests_now = static_cast<int64_t>(running_.size());
  loop_->CancelTimer(running->timer);
  loop_->CancelTimer(running->deadline_timer);
  running->worker_call.reset();
  running->lease.reset();
  return running;
}

void Dispatcher::End(uint64_t id, GenerateEnd end) {
  const auto running = Take(id);
  ++stats_.ended;
  running->listener->OnEnd(end);
}

void Dispatcher::Fail(uint64_t id, const absl::Status& status) {
  const auto running = Take(id);
  ++stats_.failed;
  running->listener->OnError(status);
}

void Dispatcher::Cancel(uint64_t id) {
  if (Take(id) != nullptr) ++stats_.cancelled;
}

}  // namespace longhaul
