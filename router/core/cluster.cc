#include "router/core/cluster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "common/engine/fingerprint.h"

namespace longhaul {
namespace {

std::string DigestText(uint64_t high, uint64_t low) {
  return absl::StrFormat("%016x%016x", high, low);
}

}  // namespace

Cluster::Lease::~Lease() {
  PromptDone();
  --decode_->requests;
  decode_->kv_tokens -= kv_tokens_;
}

void Cluster::Lease::PromptDone() {
  if (computes_ == nullptr) return;
  computes_->predicted_us -= predicted_us_;
  if (computes_ != decode_) {
    --computes_->requests;
    computes_->kv_tokens -= kv_tokens_;
  }
  computes_.reset();
}

Cluster::Cluster(Loop* loop, ClusterOptions options, ClusterMembers members)
    : loop_(loop), options_(std::move(options)) {
  for (DecodeMember& member : members.decode) {
    Worker& worker = decode_.emplace_back();
    worker.name = std::move(member.name);
    worker.address = std::move(member.address);
    worker.is_decode = true;
    worker.client = member.client.get();
    worker.owned = std::move(member.client);
    worker.status = worker.owned.get();
  }
  for (PrefillMember& member : members.prefill) {
    Worker& worker = prefill_.emplace_back();
    worker.name = std::move(member.name);
    worker.address = std::move(member.address);
    worker.owned = std::move(member.client);
    worker.status = worker.owned.get();
  }
  view_.decode.resize(decode_.size());
  view_.prefill.resize(prefill_.size());
}

Cluster::~Cluster() {
  loop_->CancelTimer(tick_timer_);
  for (auto* workers : {&decode_, &prefill_}) {
    for (Worker& worker : *workers) loop_->CancelTimer(worker.reconnect_timer);
  }
}

void Cluster::Start() {
  for (auto* workers : {&decode_, &prefill_}) {
    for (Worker& worker : *workers) Watch(worker);
  }
  Tick();
}

const ClusterView& Cluster::View() {
  Refresh();
  return view_;
}

std::unique_ptr<Cluster::Lease> Cluster::Reserve(const Placement& placement, int64_t kv_tokens) {
  auto lease = std::unique_ptr<Lease>(new Lease);
  lease->kv_tokens_ = kv_tokens;
  lease->predicted_us_ = placement.predicted_us;
  lease->decode_ = decode_[placement.decode].load;
  // Who computes the prompt: the preferred prefill worker, or the decode worker itself.
  lease->computes_ =
      placement.prefill.empty() ? lease->decode_ : prefill_[placement.prefill[0]].load;
  lease->computes_->predicted_us += placement.predicted_us;
  lease->computes_->unreported_us += placement.predicted_us;
  const auto count = [kv_tokens](WorkerLoad& load) {
    ++load.requests;
    load.kv_tokens += kv_tokens;
  };
  count(*lease->decode_);
  if (lease->computes_ != lease->decode_) count(*lease->computes_);
  return lease;
}

void Cluster::Watch(Worker& worker) {
  worker.reconnect_timer = 0;
  worker.watch = worker.status->WatchStatus(
      options_.status_period_us,
      [this, &worker](WorkerStatus status) { OnStatus(worker, std::move(status)); },
      [this, &worker](absl::Status why) { OnBroken(worker, why); });
}

void Cluster::OnStatus(Worker& worker, WorkerStatus status) {
  const bool first = !worker.heard;
  const bool reborn = worker.heard && status.incarnation() != worker.last.incarnation();
  const uint64_t old_incarnation = worker.last.incarnation();
  if (first || reborn || !worker.connected) {
    const std::string why = WhyRefused(worker, status);
    if (!why.empty() && why != worker.refused_why) {
      LogError("worker_refused", {{"worker", worker.name}, {"why", why}});
    } else if (why.empty()) {
      LogInfo("worker_up", {{"worker", worker.name},
                            {"incarnation", status.incarnation()},
                            {"restarted", reborn ? "yes" : "no"}});
      WarnOfStrangers(worker, status);
    }
    worker.refused_why = why;
    worker.fingerprint_key = Hash64Of(status.fingerprint().SerializeAsString());
  }
  // Old requests keep the old counters: what ends on a dead incarnation changes nothing here.
  if (reborn) worker.load = std::make_shared<WorkerLoad>();
  worker.connected = true;
  worker.reconnect_pause_us = 0;
  worker.heard = true;
  worker.heard_us = loop_->NowUs();
  worker.load->unreported_us = 0;
  worker.load_then = *worker.load;
  worker.cost = CostModel::FromCoefficients(
      absl::MakeConstSpan(status.cost_model().data(), status.cost_model().size()));
  worker.last = std::move(status);
  const bool was_lost = std::exchange(worker.lost, false);
  Refresh();
  if (reborn && !was_lost && on_lost_) on_lost_(old_incarnation);
}

void Cluster::OnBroken(Worker& worker, const absl::Status& why) {
  if (worker.connected) {
    LogWarning("worker_down", {{"worker", worker.name}, {"why", why.message()}});
  }
  worker.connected = false;
  worker.broken_why = absl::StrCat("not connected: ", why.message());
  worker.watch.reset();
  worker.reconnect_pause_us = std::clamp(worker.reconnect_pause_us * 2, options_.reconnect_min_us,
                                         options_.reconnect_max_us);
  worker.reconnect_timer =
      loop_->PostAfter(worker.reconnect_pause_us, [this, &worker] { Watch(worker); });
  Refresh();
}

// Silence makes no event, so it must be looked for.
void Cluster::Tick() {
  const int64_t now_us = loop_->NowUs();
  std::vector<uint64_t> lost;
  for (auto* workers : {&decode_, &prefill_}) {
    for (Worker& worker : *workers) {
      if (!worker.heard || worker.lost) continue;
      if (now_us - worker.heard_us < options_.lost_after_us) continue;
      worker.lost = true;
      LogWarning("worker_lost", {{"worker", worker.name}, {"silent_us", now_us - worker.heard_us}});
      lost.push_back(worker.last.incarnation());
      // Whatever the stream waits for, a new one is as good.
      if (worker.connected) OnBroken(worker, absl::UnavailableError("no status for too long"));
    }
  }
  Refresh();
  tick_timer_ = loop_->PostAfter(options_.stale_after_us / 4, [this] { Tick(); });
  for (const uint64_t incarnation : lost) {
    if (on_lost_) on_lost_(incarnation);
  }
}

void Cluster::Refresh() {
  const int64_t now_us = loop_->NowUs();
  int ready_decode = 0, ready_prefill = 0;
  for (size_t i = 0; i < decode_.size(); ++i) {
    FillView(decode_[i], now_us, view_.decode[i]);
    ready_decode += view_.decode[i].ready;
  }
  for (size_t i = 0; i < prefill_.size(); ++i) {
    FillView(prefill_[i], now_us, view_.prefill[i]);
    ready_prefill += view_.prefill[i].ready;
  }
  ready_decode_.store(ready_decode, std::memory_order_relaxed);
  ready_prefill_.store(ready_prefill, std::memory_order_relaxed);
}

std::string Cluster::WhyRefused(const Worker& worker, const WorkerStatus& status) const {
  const absl::string_view role = worker.is_decode ? "decode" : "prefill";
  if (status.role() != role) {
    return absl::StrCat("is a ", status.role(), " worker, configured as ", role);
  }
  const Fingerprint& print = status.fingerprint();
  if (print.protocol_version() != kProtocolVersion) {
    return absl::StrCat("speaks protocol ", print.protocol_version(), ", this router ",
                        kProtocolVersion);
  }
  const Hash128& ours = options_.model_digest;
  if (ours != Hash128{} &&
      (print.model_digest_high() != ours.high || print.model_digest_low() != ours.low)) {
    return absl::StrCat("serves another model: digest ",
                        DigestText(print.model_digest_high(), print.model_digest_low()),
                        ", this router has ", DigestText(ours.high, ours.low));
  }
  return "";
}

void Cluster::WarnOfStrangers(const Worker& worker, const WorkerStatus& status) const {
  for (const Worker& other : worker.is_decode ? prefill_ : decode_) {
    if (!other.heard || !other.refused_why.empty()) continue;
    const absl::Status fit = CheckFingerprints(status.fingerprint(), other.last.fingerprint());
    if (fit.ok()) continue;
    LogWarning("workers_exchange_no_kv",
               {{"here", worker.name}, {"there", other.name}, {"why", fit.message()}});
  }
}

void Cluster::FillView(const Worker& worker, int64_t now_us, WorkerView& view) const {
  const WorkerStatus& last = worker.last;
  view.name = worker.name;
  view.address = worker.address;
  view.incarnation = last.incarnation();
  view.fingerprint_key = worker.fingerprint_key;
  view.block_tokens = std::max(last.fingerprint().block_tokens(), 1);
  view.blocks_total = last.blocks_total();
  view.blocks_live = last.blocks_live();
  view.blocks_cached = last.blocks_cached();
  view.requests_running = last.requests_running();
  view.requests_queued = last.requests_queued();
  view.queue_predicted_us = last.queue_predicted_us();
  view.context_tokens_max = last.context_tokens_max();
  view.prompt_share = last.prompt_share();
  view.cost = worker.cost;
  view.load = *worker.load;
  view.load_then = worker.load_then;
  if (!worker.connected) {
    view.unready_why = worker.broken_why;
  } else if (!worker.refused_why.empty()) {
    view.unready_why = worker.refused_why;
  } else if (now_us - worker.heard_us > options_.stale_after_us) {
    view.unready_why = absl::StrFormat("no status for %.1f s",
                                       static_cast<double>(now_us - worker.heard_us) / 1e6);
  } else if (last.draining()) {
    view.unready_why = "draining";
  } else {
    view.unready_why.clear();
  }
  view.ready = view.unready_why.empty();
  view.draining = worker.connected && last.draining();
}

}  // namespace longhaul
