#include "decode_worker/decode_worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/engine/periodic_status.h"
#include "decode_worker/request_check.h"

namespace longhaul {
namespace {

constexpr double kRestShareMin = 0.5;  // of the share of a step that was predicted

}  // namespace

struct DecodeWorker::Guard {
  DecodeWorker* worker;  // null once it is gone
};

// What the owner of a request holds: destroying it cancels.
class DecodeWorker::Call final : public WorkerCall {
 public:
  Call(std::shared_ptr<Guard> guard, SequenceId id) : guard_(std::move(guard)), id_(id) {}
  ~Call() override {
    if (guard_->worker != nullptr) guard_->worker->Cancel(id_);
  }

 private:
  const std::shared_ptr<Guard> guard_;
  const SequenceId id_;
};

DecodeWorker::DecodeWorker(DecodeWorkerOptions options, Loop* loop, Executor* executor,
                           TransferEngine* engine, PrefillClient* prefill,
                           const ShardedKvPool& pool)
    : options_(std::move(options)),
      loop_(loop),
      executor_(executor),
      blocks_(pool.blocks, pool.layout.block_tokens),
      scheduler_(options_.scheduler, &blocks_, &cost_),
      links_(engine),
      guard_(std::make_shared<Guard>(Guard{this})) {
  hand_off_context_ = {.loop = loop,
                       .engine = engine,
                       .links = &links_,
                       .prefill = prefill,
                       .pool = pool,
                       .name = options_.name,
                       .incarnation = options_.incarnation,
                       .fingerprint = options_.fingerprint,
                       .next_transfer_id = &next_transfer_id_,
                       .options = options_.hand_off};
}

DecodeWorker::~DecodeWorker() { guard_->worker = nullptr; }

std::unique_ptr<WorkerCall> DecodeWorker::Generate(GenerateRequest message, OnEvent on_event,
                                                   OnDone done) {
  const SequenceId id = next_id_++;
  absl::Status refused;
  absl::StatusOr<DecodeRequest> checked =
      CheckGenerateRequest(message, options_.vocab, options_.eos_tokens);
  if (draining_) {
    refused = absl::UnavailableError(absl::StrCat(options_.name, " is shutting down"));
  } else if (!checked.ok()) {
    refused = checked.status();
  } else {
    refused = scheduler_.Add(id, *std::move(checked));
  }
  if (!refused.ok()) {
    ++counters_.requests_refused;
    loop_->Post([done = std::move(done), refused = std::move(refused)]() mutable {
      done(std::move(refused));
    });
    return std::make_unique<Call>(guard_, id);
  }
  ++counters_.requests_accepted;
  auto request = std::make_unique<Request>();
  request->id = id;
  request->received_us = loop_->NowUs();
  request->on_event = std::move(on_event);
  request->done = std::move(done);
  request->message = std::move(message);
  if (request->message.deadline_us() > 0) {
    request->deadline_timer =
        loop_->PostAfter(request->message.deadline_us(), [guard = guard_, id] {
          if (guard->worker != nullptr)
            guard->worker->Fail(id, absl::DeadlineExceededError("the request's time is up"));
        });
  }
  requests_.emplace(id, std::move(request));
  Later();
  return std::make_unique<Call>(guard_, id);
}

// Looks for work from a task of its own: callers may be inside a callback or a scheduler.
void DecodeWorker::Later() {
  loop_->Post([guard = guard_] {
    if (guard->worker == nullptr) return;
    guard->worker->AdmitWaiting();
    guard->worker->MaybeStep();
  });
}

DecodeWorker::Request* DecodeWorker::Find(SequenceId id) {
  const auto found = requests_.find(id);
  return found == requests_.end() ? nullptr : found->second.get();
}

void DecodeWorker::AdmitWaiting() {
  while (const std::optional<DecodeScheduler::Admission> admission = scheduler_.AdmitNext())
    Fill(*admission);
}

void DecodeWorker::Fill(const DecodeScheduler::Admission& admission) {
  Request& request = *Find(admission.id);
  const bool again = request.first_token_sent;  // it stepped back: its timing has been told
  if (!again) {
    request.admitted_us = request.fill_started_us = loop_->NowUs();
    request.cached_tokens = admission.cached_tokens;
    counters_.tokens_cached += admission.cached_tokens;
  }
  const int64_t missing = admission.fill_end - admission.cached_tokens;
  if (missing == 0) {
    request.filled_us = loop_->NowUs();
  } else if (missing <= options_.local_prefill_tokens_max ||
             request.message.prefill_addresses_size() == 0) {
    FillLocally(request);
  } else {
    StartHandOff(request, admission);
  }
}

void DecodeWorker::FillLocally(Request& request) {
  ++counters_.local_prefills;
  request.local = true;
  scheduler_.FillLocally(request.id, loop_->NowUs());
}

void DecodeWorker::StartHandOff(Request& request, const DecodeScheduler::Admission& admission) {
  const SequenceId id = request.id;
  const HandOffId hand_off_id = request.hand_off_id = next_hand_off_id_++;
  ++counters_.hand_offs;
  const std::vector<int32_t>& tokens = scheduler_.tokens(id);
  HandOff::Request wanted;
  wanted.request_id = request.message.request_id();
  wanted.tokens.assign(tokens.begin(), tokens.begin() + admission.fill_end);
  wanted.first_position = admission.cached_tokens;
  wanted.addresses.assign(request.message.prefill_addresses().begin(),
                          request.message.prefill_addresses().end());
  wanted.names.assign(request.message.prefill_names().begin(),
                      request.message.prefill_names().end());
  wanted.cache_salt = request.message.cache_salt();
  request.hand_off = std::make_unique<HandOff>(
      &hand_off_context_, std::move(wanted),
      HandOff::Callbacks{
          .grow = [this,
                   id](int64_t position_end) { return scheduler_.GrowFill(id, position_end); },
          .filled = [this, id](int64_t position_end) { scheduler_.Filled(id, position_end); },
          .done = [this, id](const absl::Status& status) { OnHandOffDone(id, status); },
          .quiesced = [this, hand_off_id] { OnHandOffQuiet(hand_off_id); },
          .closed = [this, hand_off_id] { OnHandOffQuiet(hand_off_id); },
      });
  request.hand_off->Start();
}

void DecodeWorker::CountHandOff(const HandOffReport& report, int attempts_failed) {
  counters_.kv_bytes_received += report.kv_bytes;
  counters_.hand_off_attempts_failed += attempts_failed;
  counters_.digest_mismatches += report.digest_mismatches;
  counters_.stale_messages += report.stale_messages;
}

void DecodeWorker::OnHandOffDone(SequenceId id, const absl::Status& status) {
  Request& request = *Find(id);
  const HandOffReport& report = request.hand_off->report();
  CountHandOff(report, report.attempts - (status.ok() ? 1 : 0));
  if (status.ok()) {
    ++counters_.hand_offs_whole;
    request.filled_us = loop_->NowUs();
    if (!request.report.has_value()) request.report = report;
    // It waits for the end of its stream by itself; the sequence runs.
    ending_.emplace(request.hand_off_id, Ending{std::move(request.hand_off), {}, 0});
    MaybeStep();
    return;
  }
  // Quiet already: from here on the blocks are the sequence's alone.
  loop_->Post([ended = std::shared_ptr<HandOff>(std::move(request.hand_off))] {});
  const bool prompt_refused = absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status);
  if (options_.local_fallback && !prompt_refused) {
    LogWarning("local_prefill_fallback",
               {{"request_id", request.message.request_id()}, {"why", status.ToString()}});
    ++counters_.local_fallbacks;
    FillLocally(request);
    MaybeStep();
  } else {
    Fail(id, status);
  }
}

// A hand-off that no request waits for has ended: what blocks it kept are nobody's now.
void DecodeWorker::OnHandOffQuiet(HandOffId id) {
  const auto found = ending_.find(id);
  if (found == ending_.end()) return;
  Ending ending = std::move(found->second);
  ending_.erase(found);
  blocks_.Release(ending.blocks);
  if (ending.cancelled_us != 0) {
    const int64_t since_cancel_us = loop_->NowUs() - ending.cancelled_us;
    counters_.cancel_to_free_us_max = std::max(counters_.cancel_to_free_us_max, since_cancel_us);
    ++counters_.hand_offs_cancelled;
    const HandOffReport& report = ending.hand_off->report();
    CountHandOff(report, std::max(report.attempts - 1, 0));  // the last one was cancelled
    if (observer_ != nullptr) observer_->OnCancelledFree(since_cancel_us);
  }
  loop_->Post([ended = std::shared_ptr<HandOff>(std::move(ending.hand_off))] {});
  Later();
}

void DecodeWorker::Cancel(SequenceId id) {
  if (Find(id) == nullptr) return;
  ++counters_.requests_cancelled;
  Forget(id);
}

void DecodeWorker::Fail(SequenceId id, const absl::Status& status) {
  Request* request = Find(id);
  if (request == nullptr) return;
  ++counters_.requests_failed;
  LogWarning("request_failed",
             {{"request_id", request->message.request_id()}, {"error", status.ToString()}});
  OnDone done = std::move(request->done);
  Forget(id);
  done(status);
}

// The one place where a request leaves before its end. Its blocks go when nothing writes them any
// more.
void DecodeWorker::Forget(SequenceId id) {
  const std::unique_ptr<Request> request = std::move(requests_.extract(id).mapped());
  loop_->CancelTimer(request->deadline_timer);
  if (request->hand_off == nullptr) {
    scheduler_.Remove(id);
  } else {
    const HandOffId hand_off_id = request->hand_off_id;
    Ending ending{std::move(request->hand_off), scheduler_.RemoveKeepingBlocks(id), loop_->NowUs()};
    ending.hand_off->Cancel();
    const bool quiet = ending.hand_off->quiesced();
    ending_.emplace(hand_off_id, std::move(ending));
    if (quiet) {
      loop_->Post([guard = guard_, hand_off_id] {
        if (guard->worker != nullptr) guard->worker->OnHandOffQuiet(hand_off_id);
      });
    }
  }
  Later();
}

void DecodeWorker::MaybeStep() {
  if (stepping_) return;
  StepPlan plan = scheduler_.Plan(loop_->NowUs());
  if (plan.sequences.empty()) return;
  stepping_ = true;
  step_started_us_ = loop_->NowUs();
  step_work_ = {};
  for (const StepSequence& row : plan.sequences) {
    Request* request = Find(row.id);
    // The prompt's last token is the first decode row.
    if (request != nullptr && row.position + 1 < request->message.prompt_tokens()) {
      step_work_.chunk_tokens = static_cast<int64_t>(row.tokens.size());
      step_work_.chunk_position = row.position;
    } else {
      ++step_work_.rows;
      step_work_.context_tokens += row.position;
    }
    if (request != nullptr && row.sample && request->first_step_us == 0) {
      request->first_step_us = step_started_us_;
      if (request->filled_us == 0) request->filled_us = step_started_us_;  // computed here
    }
  }
  counters_.tokens_prefilled += step_work_.chunk_tokens;
  executor_->Execute(std::move(plan), nullptr, [guard = guard_](const StepResult& result) {
    if (guard->worker != nullptr) guard->worker->OnStepDone(result);
  });
}

void DecodeWorker::OnStepDone(const StepResult& result) {
  stepping_ = false;
  ++counters_.steps;
  ObserveCost(static_cast<double>(result.compute_us));
  if (observer_ != nullptr) {
    observer_->OnStep(static_cast<int64_t>(result.sequences.size()),
                      loop_->NowUs() - step_started_us_);
  }
  for (const DecodeScheduler::Output& output : scheduler_.Commit(result)) Emit(output);
  AdmitWaiting();
  MaybeStep();
}

// Steps of one kind tell what it takes. Of the others one kind's prediction is believed, and the
// rest is the other's: the chunk's, as soon as running sequences have had a step of their own.
void DecodeWorker::ObserveCost(double compute_us) {
  const auto& [rows, context_tokens, chunk_tokens, chunk_position] = step_work_;
  const double decode_us = cost_.DecodeStepUs(rows, context_tokens);
  const double chunk_us = cost_.PrefillUs(chunk_tokens, chunk_position);
  // A wrong prediction of the one must not make the other nothing.
  const auto rest_us = [&](double other_us, double own_us) {
    const double share = own_us / (own_us + other_us);
    return std::max(compute_us - other_us, kRestShareMin * share * compute_us);
  };
  if (chunk_tokens > 0 && (rows == 0 || decode_told_)) {
    cost_.Observe(chunk_tokens, chunk_position, rest_us(decode_us, chunk_us));
  } else {
    cost_.ObserveDecode(rows, context_tokens, rest_us(chunk_us, decode_us));
    decode_told_ |= chunk_tokens == 0;
  }
}

void DecodeWorker::Emit(const DecodeScheduler::Output& output) {
  Request* request = Find(output.id);
  LH_CHECK(request != nullptr, "an output belongs to a request");
  if (!output.status.ok()) {
    Fail(output.id, output.status);
    return;
  }
  ++counters_.tokens_generated;
  GenerateEvent event;
  GenerateEvent::Token& token = *event.add_tokens();
  token.set_token(output.token.token);
  token.set_logprob(output.token.logprob);
  for (const auto& [id, logprob] : output.token.top_logprobs) {
    GenerateEvent::TokenLogprob& top = *token.add_top_logprobs();
    top.set_token(id);
    top.set_logprob(logprob);
  }
  if (!request->first_token_sent) {
    request->first_token_sent = true;
    *event.mutable_timing() = TimingOf(*request);
    if (observer_ != nullptr)
      observer_->OnFirstToken(event.timing(), request->message.length_class());
  }
  if (!output.finished) {
    request->on_event(std::move(event));
    return;
  }
  GenerateEvent::Finished& finished = *event.mutable_finished();
  finished.set_reason(output.stopped ? GenerateEvent::Finished::STOP_TOKEN
                                     : GenerateEvent::Finished::LENGTH);
  if (output.stopped) finished.set_stop_token(output.token.token);
  ++counters_.requests_finished;
  OnEvent on_event = std::move(request->on_event);
  OnDone done = std::move(request->done);
  Forget(output.id);
  on_event(std::move(event));
  done(absl::OkStatus());
}

GenerateEvent::Timing DecodeWorker::TimingOf(const Request& request) const {
  GenerateEvent::Timing timing;
  const int64_t now_us = loop_->NowUs();
  int64_t queue_us = request.admitted_us - request.received_us;
  const int64_t fill_us = request.filled_us - request.fill_started_us;
  timing.set_cached_tokens(static_cast<int32_t>(request.cached_tokens));
  timing.set_first_decode_us(now_us - request.filled_us);
  if (request.report.has_value() && !request.local) {
    const HandOffReport& report = *request.report;
    timing.set_path("remote");
    timing.set_transport(options_.transport);
    timing.set_prefill_name(report.prefill_name);
    timing.set_kv_bytes(report.kv_bytes);
    timing.set_kv_us(report.last_byte_us - report.first_byte_us);
    // Spans measured by two clocks: each is capped so that the parts never exceed the whole.
    const int64_t prefill_us = std::min(report.prefill_compute_us, fill_us);
    const int64_t exposed_us = std::min(report.exposed_us, fill_us - prefill_us);
    queue_us += fill_us - prefill_us - exposed_us;
    timing.set_prefill_us(prefill_us);
    timing.set_transfer_exposed_us(exposed_us);
    timing.set_cached_tokens(
        std::max(timing.cached_tokens(), static_cast<int32_t>(report.prefill_cached_tokens)));
  } else {
    timing.set_path(request.local ? "local" : "cached");
    timing.set_prefill_us(fill_us);
  }
  timing.set_queue_us(queue_us);
  return timing;
}

WorkerStatus DecodeWorker::Status() const {
  WorkerStatus status;
  status.set_name(options_.name);
  status.set_role("decode");
  status.set_incarnation(options_.incarnation);
  *status.mutable_fingerprint() = options_.fingerprint;
  status.set_model(options_.model);
  status.set_context_tokens_max(options_.scheduler.context_tokens_max);
  status.set_blocks_total(blocks_.total());
  status.set_blocks_live(blocks_.live());
  status.set_blocks_cached(blocks_.cached());
  status.set_requests_running(scheduler_.sequences() - scheduler_.waiting());
  status.set_requests_queued(scheduler_.waiting());
  // What is to be computed here of prompts; those of prefill workers are in their own status.
  double queued_us = 0;
  for (const auto& [id, request] : requests_) {
    const bool here = request->local || request->message.prefill_addresses_size() == 0;
    if (!here || request->hand_off != nullptr) continue;
    const int64_t position = scheduler_.kv_tokens(id);
    queued_us += cost_.PrefillUs(request->message.prompt_tokens() - 1 - position, position);
  }
  status.set_queue_predicted_us(queued_us);
  status.set_prompt_share(scheduler_.prompt_share());
  status.set_draining(draining_);
  for (const double coefficient : cost_.coefficients()) status.add_cost_model(coefficient);
  return status;
}

std::unique_ptr<WorkerCall> DecodeWorker::WatchStatus(int64_t period_us, OnStatus on_status,
                                                      OnDone done) {
  return std::make_unique<PeriodicStatus>(
      loop_, period_us,
      [guard = guard_]() -> std::optional<WorkerStatus> {
        if (guard->worker == nullptr) return std::nullopt;
        return guard->worker->Status();
      },
      std::move(on_status), std::move(done));
}

}  // namespace longhaul
