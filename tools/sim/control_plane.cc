#include "tools/sim/control_plane.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longhaul {

// One streaming call. The near half holds the callbacks, the far half what the worker gave; every
// message crosses after a delay of its own but never overtakes the one before.
template <typename Event, typename FarCall>
class ControlPlane::Stream : public std::enable_shared_from_this<Stream<Event, FarCall>> {
 public:
  using OnEvent = absl::AnyInvocable<void(Event)>;
  using OnDone = absl::AnyInvocable<void(absl::Status)>;
  using Start = std::function<std::unique_ptr<FarCall>(Process&, OnEvent, OnDone)>;

  Stream(ControlPlane* plane, std::string from, std::string to, OnEvent on_event, OnDone done)
      : plane_(plane),
        from_(std::move(from)),
        to_(std::move(to)),
        on_event_(std::move(on_event)),
        done_(std::move(done)) {}

  void Open(Start start) {
    near_life_ = plane_->processes_[from_].life;
    CrossTo(to_, &to_far_us_, [self = this->shared_from_this(), start = std::move(start)] {
      Process& process = self->plane_->processes_[self->to_];
      if (self->near_closed_ || !self->NearLives()) return;
      if (!process.up) {
        self->BreakNear();
        return;
      }
      self->far_life_ = process.life;
      self->far_open_ = true;
      self->far_ = start(
          process, [self](Event event) { self->SendEvent(std::move(event)); },
          [self](absl::Status status) { self->SendDone(std::move(status)); });
      self->Watch();
    });
  }

  // From the near side: it wants no more.
  void Close() {
    if (near_closed_) return;
    near_closed_ = true;
    on_event_ = nullptr;
    done_ = nullptr;
    CrossTo(to_, &to_far_us_, [self = this->shared_from_this()] { self->DropFar(); });
  }

  void OnFar(std::function<void(FarCall&)> task) {
    CrossTo(to_, &to_far_us_, [self = this->shared_from_this(), task = std::move(task)] {
      if (self->far_ != nullptr && self->FarLives()) task(*self->far_);
    });
  }

 private:
  bool NearLives() const { return plane_->processes_[from_].life == near_life_; }
  bool FarLives() const {
    const Process& process = plane_->processes_[to_];
    return process.up && process.life == far_life_;
  }

  void CrossTo(const std::string& whom, int64_t* last_us, Loop::Task task) {
    const int64_t now_us = plane_->loop_->NowUs();
    const int64_t at_us = std::max(*last_us, now_us + plane_->DrawDelayUs());
    *last_us = at_us;
    plane_->LoopOf(whom)->PostAfter(at_us - now_us, std::move(task));
  }

  void SendEvent(Event event) {
    const bool again = std::is_same_v<Event, PrefillEvent> && plane_->faults_ &&
                       plane_->dice_->Chance(plane_->scenario_.rpc_duplicates);
    for (int i = again ? 2 : 1; i > 0; --i) {
      CrossTo(from_, &to_near_us_,
              [self = this->shared_from_this(), event] { self->DeliverEvent(event); });
    }
  }

  void DeliverEvent(const Event& event) {
    if (near_closed_ || !NearLives()) return;
    plane_->trace_("event", static_cast<uint64_t>(event.ByteSizeLong()));
    if constexpr (std::is_same_v<Event, PrefillEvent>) {
      std::vector<PrefillEvent>& past = plane_->past_events_[from_];
      if (!past.empty() && plane_->faults_ && plane_->dice_->Chance(plane_->scenario_.rpc_strays)) {
        on_event_(past[plane_->dice_->Between(0, static_cast<int64_t>(past.size()) - 1)]);
        if (near_closed_) return;
      }
      past.push_back(event);
    }
    on_event_(event);
  }

  void SendDone(absl::Status status) {
    CrossTo(from_, &to_near_us_, [self = this->shared_from_this(), status = std::move(status)] {
      self->FinishNear(status);
    });
  }

  void FinishNear(const absl::Status& status) {
    if (near_closed_ || !NearLives()) return;
    near_closed_ = true;
    plane_->trace_("done", static_cast<uint64_t>(status.code()));
    OnDone done = std::move(done_);
    done(status);
    CrossTo(to_, &to_far_us_, [self = this->shared_from_this()] { self->DropFar(); });
  }

  void BreakNear() {
    FinishNear(absl::UnavailableError(absl::StrCat("the connection to ", to_, " broke")));
  }

  void DropFar() {
    if (!far_open_) return;
    far_open_ = false;
    far_.reset();
  }

  // Notices, some time later, that one end is gone.
  void Watch() {
    if (!far_open_) return;
    const auto self = this->shared_from_this();
    if (!FarLives()) plane_->LoopOf(from_)->Post([self] { self->BreakNear(); });
    if (!FarLives() || !NearLives()) {
      plane_->LoopOf(to_)->Post([self] { self->DropFar(); });
      return;
    }
    plane_->loop_->PostAfter(plane_->scenario_.rpc_detect_us,
                             [self = this->shared_from_this()] { self->Watch(); });
  }

  ControlPlane* const plane_;
  const std::string from_, to_;
  OnEvent on_event_;
  OnDone done_;
  std::unique_ptr<FarCall> far_;
  bool far_open_ = false;
  bool near_closed_ = false;
  int64_t near_life_ = 0, far_life_ = 0;
  int64_t to_far_us_ = 0, to_near_us_ = 0;
};

template <typename Event>
class ControlPlane::Call final : public WorkerCall {
 public:
  explicit Call(std::shared_ptr<Stream<Event, WorkerCall>> stream) : stream_(std::move(stream)) {}
  ~Call() override { stream_->Close(); }

 private:
  const std::shared_ptr<Stream<Event, WorkerCall>> stream_;
};

class ControlPlane::PrefillStreamCall final : public PrefillCall {
 public:
  explicit PrefillStreamCall(std::shared_ptr<Stream<PrefillEvent, PrefillCall>> stream)
      : stream_(std::move(stream)) {}
  ~PrefillStreamCall() override { stream_->Close(); }
  void Grant(int chunks) override {
    stream_->OnFar([chunks](PrefillCall& call) { call.Grant(chunks); });
  }

 private:
  const std::shared_ptr<Stream<PrefillEvent, PrefillCall>> stream_;
};

class ControlPlane::Decode final : public WorkerClient {
 public:
  Decode(ControlPlane* plane, std::string from, std::string to)
      : plane_(plane), from_(std::move(from)), to_(std::move(to)) {}

  std::unique_ptr<WorkerCall> Generate(GenerateRequest request, OnEvent on_event,
                                       OnDone done) override {
    auto stream = std::make_shared<Stream<GenerateEvent, WorkerCall>>(
        plane_, from_, to_, std::move(on_event), std::move(done));
    stream->Open([request](Process& process, auto event, auto end) {
      return process.decode->Generate(request, std::move(event), std::move(end));
    });
    return std::make_unique<Call<GenerateEvent>>(std::move(stream));
  }
  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    auto stream = std::make_shared<Stream<WorkerStatus, WorkerCall>>(
        plane_, from_, to_, std::move(on_status), std::move(done));
    stream->Open([period_us](Process& process, auto event, auto end) {
      return process.decode->WatchStatus(period_us, std::move(event), std::move(end));
    });
    return std::make_unique<Call<WorkerStatus>>(std::move(stream));
  }

 private:
  ControlPlane* const plane_;
  const std::string from_, to_;
};

class ControlPlane::PrefillStatus final : public StatusClient {
 public:
  PrefillStatus(ControlPlane* plane, std::string from, std::string to)
      : plane_(plane), from_(std::move(from)), to_(std::move(to)) {}

  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    auto stream = std::make_shared<Stream<WorkerStatus, WorkerCall>>(
        plane_, from_, to_, std::move(on_status), std::move(done));
    stream->Open([period_us](Process& process, auto event, auto end) {
      return process.prefill->WatchStatus(period_us, std::move(event), std::move(end));
    });
    return std::make_unique<Call<WorkerStatus>>(std::move(stream));
  }

 private:
  ControlPlane* const plane_;
  const std::string from_, to_;
};

class ControlPlane::Prefills final : public PrefillClient {
 public:
  Prefills(ControlPlane* plane, std::string from) : plane_(plane), from_(std::move(from)) {}

  std::unique_ptr<PrefillCall> Prefill(const std::string& address, PrefillCommand::Open open,
                                       OnPrefillEvent on_event, OnPrefillDone done) override {
    auto stream = std::make_shared<Stream<PrefillEvent, PrefillCall>>(
        plane_, from_, address, std::move(on_event), std::move(done));
    stream->Open([open](Process& process, auto event, auto end) {
      return process.prefill->Prefill(open, std::move(event), std::move(end));
    });
    return std::make_unique<PrefillStreamCall>(std::move(stream));
  }

 private:
  ControlPlane* const plane_;
  const std::string from_;
};

void ControlPlane::Up(const std::string& name, Loop* loop, WorkerClient* decode,
                      PrefillEndpoint* prefill) {
  Process& process = processes_[name];
  ++process.life;
  process.up = true;
  process.loop = loop;
  process.decode = decode;
  process.prefill = prefill;
}

void ControlPlane::Down(const std::string& name) {
  Process& process = processes_[name];
  ++process.life;
  process.up = false;
  past_events_.erase(name);
}

Loop* ControlPlane::LoopOf(const std::string& name) {
  Loop* const own = processes_[name].loop;
  return own != nullptr ? own : loop_;  // nobody has ever served there
}

int64_t ControlPlane::DrawDelayUs() {
  return scenario_.rpc_delay_us +
         (scenario_.rpc_jitter_us > 0 ? dice_->Between(0, scenario_.rpc_jitter_us) : 0);
}

std::unique_ptr<WorkerClient> ControlPlane::DecodeClient(const std::string& from,
                                                         const std::string& to) {
  return std::make_unique<Decode>(this, from, to);
}

std::unique_ptr<StatusClient> ControlPlane::PrefillStatusClient(const std::string& from,
                                                                const std::string& to) {
  return std::make_unique<PrefillStatus>(this, from, to);
}

std::unique_ptr<PrefillClient> ControlPlane::MakePrefillClient(const std::string& from) {
  return std::make_unique<Prefills>(this, from);
}

}  // namespace longhaul
