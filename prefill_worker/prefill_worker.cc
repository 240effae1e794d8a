#include "prefill_worker/prefill_worker.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/mutant.h"
#include "common/base/status.h"
#include "common/engine/fingerprint.h"
#include "common/engine/periodic_status.h"

namespace longhaul {
namespace {

constexpr int64_t kHeartbeatMinUs = 1'000;
constexpr double kStepStallShare = 20;  // of the prediction: other work may share the processor

}  // namespace

struct PrefillWorker::Guard {
  PrefillWorker* worker;  // null once it is gone
};

// What the owner of a prompt holds: destroying it cancels.
class PrefillWorker::Call final : public PrefillCall {
 public:
  Call(std::shared_ptr<Guard> guard, SequenceId id) : guard_(std::move(guard)), id_(id) {}
  ~Call() override {
    if (guard_->worker != nullptr) guard_->worker->Cancel(id_);
  }
  void Grant(int chunks) override {
    if (guard_->worker != nullptr) guard_->worker->Grant(id_, chunks);
  }

 private:
  const std::shared_ptr<Guard> guard_;
  const SequenceId id_;
};

PrefillWorker::PrefillWorker(PrefillWorkerOptions options, Loop* loop, Executor* executor,
                             TransferEngine* engine, const ShardedKvPool& pool)
    : options_(std::move(options)),
      loop_(loop),
      executor_(executor),
      engine_(engine),
      pool_(pool),
      blocks_(pool.blocks, pool.layout.block_tokens),
      scheduler_(options_.scheduler, &cost_),
      guard_(std::make_shared<Guard>(Guard{this})) {}

PrefillWorker::~PrefillWorker() { guard_->worker = nullptr; }

absl::Status PrefillWorker::Check(const PrefillCommand::Open& open) const {
  // Aborted, not Unavailable: its link still carries what was accepted.
  if (draining_) return absl::AbortedError(absl::StrCat(options_.name, " is shutting down"));
  LH_RETURN_IF_ERROR(CheckFingerprints(options_.fingerprint, open.fingerprint()));
  const int64_t tokens = open.tokens_size();
  const int block_tokens = blocks_.block_tokens();
  if (tokens == 0 || tokens > options_.context_tokens_max) {
    return absl::InvalidArgumentError(absl::StrCat("a prompt of ", tokens, " tokens; ",
                                                   options_.name, " takes 1 to ",
                                                   options_.context_tokens_max));
  }
  const bool bad_cut = open.first_position() < 0 || open.first_position() >= tokens ||
                       open.first_position() % block_tokens != 0 || open.chunk_tokens() <= 0 ||
                       open.chunk_tokens() % block_tokens != 0 ||
                       (tokens - open.first_position()) / open.chunk_tokens() >= kTransferChunksMax;
  if (bad_cut) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chunks of ", open.chunk_tokens(), " tokens from position ", open.first_position(), " of ",
        tokens, " do not fit blocks of ", block_tokens, " tokens"));
  }
  LH_RETURN_IF_ERROR(CheckKvParts(pool_.layout, open.kv_parts()));
  if (open.heartbeat_us() != 0 && open.heartbeat_us() < kHeartbeatMinUs) {
    return absl::InvalidArgumentError(absl::StrCat("a heartbeat every ", open.heartbeat_us(),
                                                   " us; use 0 for none, or at least ",
                                                   kHeartbeatMinUs));
  }
  if (blocks_.BlocksFor(tokens) > blocks_.total()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a prompt of ", tokens, " tokens needs ", blocks_.BlocksFor(tokens), " KV blocks; ",
        options_.name, " has ", blocks_.total(), "; raise --kv_bytes"));
  }
  if (static_cast<int64_t>(sessions_.size()) >= options_.prompts_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(options_.name, " has ", sessions_.size(), " prompts already, its limit"));
  }
  return absl::OkStatus();
}

std::unique_ptr<PrefillCall> PrefillWorker::Prefill(PrefillCommand::Open open,
                                                    OnPrefillEvent on_event, OnPrefillDone done) {
  const SequenceId id = next_id_++;
  if (absl::Status refused = Check(open); !refused.ok()) {
    ++counters_.prompts_refused;
    loop_->Post([done = std::move(done), refused = std::move(refused)]() mutable {
      done(std::move(refused));
    });
    return std::make_unique<Call>(guard_, id);
  }
  auto session = std::make_unique<Session>();
  session->id = id;
  session->request_id = open.request_id();
  session->transfer_id = open.transfer_id();
  session->cache_salt = open.cache_salt();
  session->decode_incarnation = open.decode_incarnation();
  session->decode_name = open.decode_name();
  session->link_address = open.link_address();
  session->tokens.assign(open.tokens().begin(), open.tokens().end());
  session->first_position = open.first_position();
  session->chunk_tokens = open.chunk_tokens();
  session->chunks_granted = open.chunks_granted();
  session->kv_parts = open.kv_parts();
  session->heartbeat_us = open.heartbeat_us();
  session->on_event = std::move(on_event);
  session->done = std::move(done);
  session->received_us = loop_->NowUs();
  ArmHeartbeat(*session);
  sessions_.emplace(id, std::move(session));
  waiting_.push_back(id);
  ++counters_.prompts_accepted;
  // From a task of its own: no callback comes from inside this call.
  loop_->Post([guard = guard_] {
    if (guard->worker == nullptr) return;
    guard->worker->AdmitWaiting();
    guard->worker->MaybeStep();
  });
  return std::make_unique<Call>(guard_, id);
}

// By how much the step under way is longer than predicted.
int64_t PrefillWorker::StepLateUs() const {
  if (!stepping_) return 0;
  const int64_t since_us = loop_->NowUs() - step_started_us_;
  return std::max<int64_t>(0, since_us - static_cast<int64_t>(step_predicted_us_));
}

// Before the first step has ended a prediction is a guess.
bool PrefillWorker::StepHangs() const {
  const double most_us =
      static_cast<double>(options_.step_stall_us) + kStepStallShare * step_predicted_us_;
  return counters_.chunks_computed > 0 && static_cast<double>(StepLateUs()) > most_us;
}

// From this loop and no other: what is said is that the loop still runs, and its steps end.
void PrefillWorker::ArmHeartbeat(Session& session) {
  if (session.heartbeat_us == 0) return;
  session.heartbeat_timer =
      loop_->PostAfter(session.heartbeat_us, [guard = guard_, id = session.id] {
        if (guard->worker != nullptr) guard->worker->Heartbeat(id);
      });
}

void PrefillWorker::Heartbeat(SequenceId id) {
  Session& session = *Find(id);
  if (session.cancelled) return;
  // A prompt that nobody takes would hold its memory for ever.
  if (++session.heartbeats_missed > options_.heartbeats_missed_max &&
      !MutantIs(Mutant::kAbandonedKept)) {
    ++counters_.prompts_abandoned;
    End(session, absl::DeadlineExceededError(absl::StrCat(
                     "no word from the decode worker for ",
                     session.heartbeat_us * options_.heartbeats_missed_max / 1000, " ms")));
    return;
  }
  ArmHeartbeat(session);
  if (StepHangs()) return;
  PrefillEvent event;
  event.set_transfer_id(session.transfer_id);
  event.mutable_heartbeat();
  session.on_event(std::move(event));
}

PrefillWorker::Session* PrefillWorker::Find(SequenceId id) {
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? nullptr : found->second.get();
}

void PrefillWorker::AdmitWaiting() {
  // In order of arrival; smaller prompts may pass one that waits for memory, but not for ever.
  // Callbacks may cancel prompts meanwhile, hence the copy.
  for (const SequenceId id : std::vector<SequenceId>(waiting_.begin(), waiting_.end())) {
    Session* session = Find(id);
    if (session == nullptr || session->cancelled) continue;
    if (!Admit(*session) && ++session->bypassed > options_.bypass_max) return;
  }
}

bool PrefillWorker::Admit(Session& session) {
  const int64_t tokens = static_cast<int64_t>(session.tokens.size());
  std::vector<BlockId> blocks = blocks_.Match(session.tokens, tokens, session.cache_salt);
  const int64_t matched = static_cast<int64_t>(blocks.size());
  if (!blocks_.Allocate(blocks_.BlocksFor(tokens) - matched, &blocks)) {
    blocks_.Release(blocks);
    return false;
  }
  std::erase(waiting_, session.id);
  session.blocks = std::move(blocks);
  session.cached_tokens = session.computed = matched * blocks_.block_tokens();
  session.published = matched;
  counters_.tokens_cached += session.cached_tokens;

  SayStarted(session);  // before the first chunk can be
  MakeSender(session);
  session.sender->Grant(session.chunks_granted);
  for (int layer = 0; layer < pool_.layout.layers; ++layer) {
    session.sender->LayerReady(layer, session.cached_tokens);
  }
  if (session.computed < tokens) {
    scheduler_.Add(session.id, session.computed, tokens, loop_->NowUs());
  } else {
    session.computed_at_us = loop_->NowUs();
  }
  return true;
}

// From a task of its own: the message takes as long to write as a short chunk to launch.
void PrefillWorker::SayStarted(const Session& session) {
  PrefillEvent event;
  event.set_transfer_id(session.transfer_id);
  event.mutable_started()->set_prefill_incarnation(options_.incarnation);
  event.mutable_started()->set_cached_tokens(static_cast<int32_t>(session.cached_tokens));
  event.mutable_started()->set_queue_us(loop_->NowUs() - session.received_us);
  loop_->Post([guard = guard_, id = session.id, event = std::move(event)]() mutable {
    if (guard->worker == nullptr) return;
    Session* started = guard->worker->Find(id);
    if (started != nullptr && !started->cancelled) started->on_event(std::move(event));
  });
}

LinkId PrefillWorker::LinkTo(const Session& session) {
  PeerLink& peer = links_[session.decode_incarnation];
  if (peer.address != session.link_address) {
    // The decode worker gave its old link up; whatever still moves on it is of no use to anybody.
    if (peer.link != 0) engine_->Close(peer.link, [] {});
    peer = {session.decode_name, session.link_address, engine_->Connect(session.link_address)};
    for (auto& [incarnation, other] : links_) {
      other.replaced |= other.name == peer.name && incarnation != session.decode_incarnation;
    }
  }
  peer.used_us = loop_->NowUs();
  return peer.link;
}

// Nobody says that a decode worker is gone for good: its link goes when another incarnation has
// taken its place, or when too many have been idle for less long. One that comes back all the same
// finds its link closed, and its next attempt makes a new one.
void PrefillWorker::CloseIdleLinks() {
  absl::flat_hash_set<LinkId> busy;
  for (const auto& [id, session] : sessions_) busy.insert(session->link);
  std::vector<std::pair<int64_t, uint64_t>> idle;  // since when, whose
  for (const auto& [incarnation, peer] : links_) {
    if (busy.contains(peer.link)) continue;
    idle.emplace_back(peer.replaced ? -1 : peer.used_us, incarnation);
  }
  std::sort(idle.begin(), idle.end());
  const int64_t excess = static_cast<int64_t>(idle.size()) - options_.links_idle_max;
  for (int64_t i = 0; i < static_cast<int64_t>(idle.size()); ++i) {
    const auto peer = links_.find(idle[i].second);
    if (!peer->second.replaced && i >= excess) break;
    engine_->Close(peer->second.link, [] {});
    links_.erase(peer);
  }
}

void PrefillWorker::MakeSender(Session& session) {
  const SequenceId id = session.id;
  session.link = LinkTo(session);
  const TransferPlan plan(pool_.layout, session.kv_parts, session.first_position,
                          static_cast<int64_t>(session.tokens.size()), session.chunk_tokens);
  session.sender = std::make_unique<KvSender>(
      engine_, session.link, pool_, plan, session.transfer_id, session.blocks,
      KvSender::Callbacks{
          .chunk_sent =
              [this, id](int chunk, uint64_t digest) {
                Session* session = Find(id);
                if (session == nullptr || session->cancelled) return;
                PrefillEvent event;
                event.set_transfer_id(session->transfer_id);
                PrefillEvent::ChunkSent& sent = *event.mutable_chunk_sent();
                sent.set_chunk(chunk);
                sent.set_digest(digest);
                sent.set_compute_us(ComputeUs(*session));
                if (session->computed_at_us != 0)
                  sent.set_since_computed_us(loop_->NowUs() - session->computed_at_us);
                session->on_event(std::move(event));
              },
          .quiesced = [this, id](const absl::Status& status) { OnQuiesced(id, status); },
      });
}

// A prompt's KV is sent while its last step ends: what that has taken counts too.
int64_t PrefillWorker::ComputeUs(const Session& session) const {
  if (!session.in_step) return session.compute_us;
  const int64_t until_us = session.computed_at_us != 0 ? session.computed_at_us : loop_->NowUs();
  return session.compute_us + until_us - step_started_us_;
}

void PrefillWorker::Grant(SequenceId id, int chunks) {
  Session* session = Find(id);
  if (session == nullptr || session->cancelled) return;
  session->heartbeats_missed = 0;
  session->chunks_granted = std::max(session->chunks_granted, chunks);
  if (session->sender != nullptr) session->sender->Grant(session->chunks_granted);
}

void PrefillWorker::MaybeStep() {
  if (stepping_) return;
  const std::optional<PrefillScheduler::Chunk> chunk = scheduler_.Next(loop_->NowUs());
  if (!chunk.has_value()) return;
  Session& session = *Find(chunk->id);
  const int64_t end = chunk->position + chunk->tokens;
  StepSequence sequence;
  sequence.id = chunk->id;
  sequence.position = chunk->position;
  sequence.tokens.assign(session.tokens.begin() + chunk->position, session.tokens.begin() + end);
  sequence.blocks.assign(session.blocks.begin(), session.blocks.begin() + blocks_.BlocksFor(end));
  StepPlan plan;
  plan.step = next_step_++;
  plan.sequences.push_back(std::move(sequence));
  stepping_ = true;
  step_started_us_ = loop_->NowUs();
  step_predicted_us_ = cost_.PrefillUs(chunk->tokens, chunk->position);
  session.in_step = true;
  executor_->Execute(
      std::move(plan),
      [guard = guard_, id = chunk->id, end](int layer) {
        if (guard->worker != nullptr) guard->worker->OnLayer(id, layer, end);
      },
      [guard = guard_, chunk = *chunk](const StepResult& result) {
        if (guard->worker != nullptr) guard->worker->OnStepDone(chunk, result);
      });
}

void PrefillWorker::OnLayer(SequenceId id, int layer, int64_t position_end) {
  Session* session = Find(id);
  if (session == nullptr || session->cancelled) return;
  const bool last = layer + 1 == pool_.layout.layers &&
                    position_end == static_cast<int64_t>(session->tokens.size());
  if (last) session->computed_at_us = loop_->NowUs();
  session->sender->LayerReady(layer, position_end);
}

void PrefillWorker::OnStepDone(const PrefillScheduler::Chunk& chunk, const StepResult& result) {
  stepping_ = false;
  cost_.Observe(chunk.tokens, chunk.position, static_cast<double>(result.compute_us));
  ++counters_.chunks_computed;
  if (observer_ != nullptr) observer_->OnStep(result.compute_us);
  counters_.tokens_computed += chunk.tokens;
  scheduler_.Advance(chunk);
  Session& session = *Find(chunk.id);
  session.in_step = false;
  session.compute_us += result.compute_us;
  session.computed = chunk.position + chunk.tokens;
  const absl::Status& status = result.sequences[0].status;
  if (status.ok()) {
    session.published = blocks_.Publish(
        absl::MakeConstSpan(session.tokens).first(session.computed),
        absl::MakeConstSpan(session.blocks).first(blocks_.BlocksFor(session.computed)),
        session.published, session.cache_salt);
  } else if (!session.cancelled) {
    End(session, status);
  }
  if (Session* still = Find(chunk.id); still != nullptr) FinishIfQuiet(*still);
  MaybeStep();
}

void PrefillWorker::Cancel(SequenceId id) {
  Session* session = Find(id);
  if (session == nullptr || session->cancelled) return;
  ++counters_.prompts_cancelled;
  End(*session, absl::CancelledError("cancelled by the decode worker"));
}

// Tells the owner, unless it was the owner who cancelled, and winds the session down.
void PrefillWorker::End(Session& session, const absl::Status& status) {
  session.cancelled = true;
  session.cancelled_us = loop_->NowUs();
  scheduler_.Remove(session.id);
  std::erase(waiting_, session.id);
  if (!absl::IsCancelled(status)) {
    ++counters_.prompts_failed;
    LogWarning("prefill_failed",
               {{"request_id", session.request_id}, {"error", status.ToString()}});
    session.done(status);
  }
  if (session.sender != nullptr) {
    ++(absl::IsCancelled(status) ? counters_.transfers_cancelled : counters_.transfers_failed);
    session.sender->Cancel();
    if (!session.sender->quiesced()) {
      loop_->PostAfter(options_.fence_us, [guard = guard_, id = session.id] {
        if (guard->worker != nullptr) guard->worker->Fence(id);
      });
    }
  }
  FinishIfQuiet(session);
}

void PrefillWorker::Fence(SequenceId id) {
  Session* session = Find(id);
  if (session == nullptr || session->sender == nullptr || session->sender->quiesced()) return;
  ++counters_.links_fenced;
  LogWarning("kv_link_fenced",
             {{"request_id", session->request_id}, {"after_us", options_.fence_us}});
  for (auto peer = links_.begin(); peer != links_.end();) {
    peer = peer->second.link == session->link ? links_.erase(peer) : std::next(peer);
  }
  engine_->Close(session->link, [] {});
}

void PrefillWorker::OnQuiesced(SequenceId id, const absl::Status& status) {
  Session* session = Find(id);
  if (session == nullptr) return;
  if (!session->cancelled && !status.ok()) {
    End(*session, absl::UnavailableError(absl::StrCat("sending KV failed: ", status.message())));
    return;
  }
  FinishIfQuiet(*session);
}

// The one place where a prompt's blocks are given back.
void PrefillWorker::FinishIfQuiet(Session& session) {
  if (session.in_step) return;
  if (session.sender != nullptr && !session.sender->quiesced()) return;
  if (!session.cancelled && session.computed < static_cast<int64_t>(session.tokens.size())) return;
  // Out of the map first: callbacks may cancel what has ended.
  const std::shared_ptr<Session> ended = std::move(sessions_.extract(session.id).mapped());
  loop_->CancelTimer(ended->heartbeat_timer);
  blocks_.Release(ended->blocks);
  if (ended->sender != nullptr) counters_.bytes_sent += ended->sender->bytes_sent();
  if (ended->cancelled) {
    const int64_t since_cancel_us = loop_->NowUs() - ended->cancelled_us;
    counters_.cancel_to_free_us_max = std::max(counters_.cancel_to_free_us_max, since_cancel_us);
    if (observer_ != nullptr) observer_->OnCancelledFree(since_cancel_us);
  } else {
    ++counters_.prompts_finished;
    ended->done(absl::OkStatus());
  }
  // The sender may be on the stack above: it goes with a task of its own.
  loop_->Post([guard = guard_, ended] {
    if (guard->worker == nullptr) return;
    guard->worker->CloseIdleLinks();
    guard->worker->AdmitWaiting();
    guard->worker->MaybeStep();
  });
}

WorkerStatus PrefillWorker::Status() const {
  WorkerStatus status;
  status.set_name(options_.name);
  status.set_role("prefill");
  status.set_incarnation(options_.incarnation);
  *status.mutable_fingerprint() = options_.fingerprint;
  status.set_model(options_.model);
  status.set_context_tokens_max(options_.context_tokens_max);
  status.set_blocks_total(blocks_.total());
  status.set_blocks_live(blocks_.live());
  status.set_blocks_cached(blocks_.cached());
  status.set_requests_running(static_cast<int64_t>(sessions_.size() - waiting_.size()));
  status.set_requests_queued(static_cast<int64_t>(waiting_.size()));
  // Who comes next waits at least as long again as the step under way is late already.
  double queued_us = scheduler_.queued_us() + static_cast<double>(StepLateUs());
  for (const SequenceId id : waiting_) {
    queued_us += cost_.PrefillUs(static_cast<int64_t>(sessions_.at(id)->tokens.size()), 0);
  }
  status.set_queue_predicted_us(queued_us);
  status.set_draining(draining_);
  for (const double coefficient : cost_.coefficients()) status.add_cost_model(coefficient);
  return status;
}

std::unique_ptr<WorkerCall> PrefillWorker::WatchStatus(int64_t period_us, OnStatus on_status,
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
