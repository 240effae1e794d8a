#include "kv_transfer/self_test.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/log.h"

namespace longhaul {
namespace {

// Holds itself alive until the outcome is out: its callbacks and timer each own a share.
class SelfTest final : public std::enable_shared_from_this<SelfTest> {
 public:
  SelfTest(Loop* loop, Transport* transport, SelfTestOptions options,
           absl::AnyInvocable<void(absl::StatusOr<LinkSpeed>)> done)
      : loop_(loop),
        transport_(transport),
        options_(options),
        done_(std::move(done)),
        source_(options.message_bytes),
        target_(options.message_bytes) {
    for (size_t i = 0; i < source_.size(); ++i) source_[i] = static_cast<std::byte>(i * 131 >> 3);
  }

  void Run() {
    if (absl::Status status = MakeLink(); !status.ok()) return End(std::move(status));
    timer_ = loop_->PostAfter(options_.timeout_us, [self = shared_from_this()] {
      self->timer_ = 0;
      self->End(absl::DeadlineExceededError(absl::StrCat(
          "only ", self->landed_, " of ", self->options_.messages + kWindow, " messages of ",
          self->options_.message_bytes, " bytes crossed the link within ",
          self->options_.timeout_us / 1000, " ms")));
    });
    for (int i = 0; i < kWindow; ++i) StartNext();
  }

 private:
  static constexpr int kWindow = 4;

  absl::Status MakeLink() {
    auto accepted = transport_->Accept();
    if (!accepted.ok()) return accepted.status();
    receiver_ = std::move(accepted->link);
    auto sender = transport_->Connect(accepted->address);
    if (!sender.ok()) return sender.status();
    sender_ = *std::move(sender);
    return absl::OkStatus();
  }

  // The first window also makes the connection, so the clock starts when it has landed.
  void StartNext() {
    if (started_ == options_.messages + kWindow) return;
    const TransferTag tag = started_++;
    receiver_->Receive(tag, {{target_.data(), options_.message_bytes}},
                       [self = shared_from_this()](absl::Status status) { self->Landed(status); });
    sender_->Send(tag, {{source_.data(), options_.message_bytes}},
                  [self = shared_from_this()](absl::Status) {});
  }

  void Landed(const absl::Status& status) {
    if (ended_) return;
    if (!status.ok()) return End(status);
    if (++landed_ == kWindow) began_us_ = loop_->NowUs();
    if (landed_ < options_.messages + kWindow) return StartNext();
    if (target_ != source_) return End(absl::DataLossError("the link changed bytes on the way"));
    const double seconds =
        static_cast<double>(std::max<int64_t>(loop_->NowUs() - began_us_, 1)) / 1e6;
    End(LinkSpeed{sender_->path(),
                  static_cast<double>(options_.message_bytes) * options_.messages / seconds});
  }

  void End(absl::StatusOr<LinkSpeed> outcome) {
    if (std::exchange(ended_, true)) return;
    loop_->CancelTimer(timer_);
    // Not from here: this may be a callback of these links.
    loop_->Post([self = shared_from_this(), outcome = std::move(outcome)]() mutable {
      self->sender_.reset();
      self->receiver_.reset();
      ReportLinkSpeed(self->transport_->name(), self->options_, MemoryKind::kHost, outcome);
      std::move(self->done_)(std::move(outcome));
    });
  }

  Loop* const loop_;
  Transport* const transport_;
  const SelfTestOptions options_;
  absl::AnyInvocable<void(absl::StatusOr<LinkSpeed>)> done_;
  Loop::TimerId timer_ = 0;
  std::vector<std::byte> source_;
  std::vector<std::byte> target_;
  std::unique_ptr<Link> receiver_;
  std::unique_ptr<Link> sender_;
  int started_ = 0;
  int landed_ = 0;
  int64_t began_us_ = 0;
  bool ended_ = false;
};

}  // namespace

void ReportLinkSpeed(const std::string& transport, const SelfTestOptions& options, MemoryKind kind,
                     const absl::StatusOr<LinkSpeed>& outcome) {
  const char* const memory = kind == MemoryKind::kCuda ? "cuda" : "host";
  if (!outcome.ok()) {
    LogWarning(
        "transport_self_test_failed",
        {{"transport", transport}, {"memory", memory}, {"reason", outcome.status().ToString()}});
    return;
  }
  const double gb_per_s = outcome->bytes_per_s / 1e9;
  if (outcome->bytes_per_s < options.floor_bytes_per_s) {
    LogWarning("transport_slow", {{"transport", transport},
                                  {"memory", memory},
                                  {"path", outcome->path},
                                  {"gb_per_s", gb_per_s},
                                  {"floor_gb_per_s", options.floor_bytes_per_s / 1e9},
                                  {"advice", options.advice}});
  } else {
    LogInfo("transport_self_test", {{"transport", transport},
                                    {"memory", memory},
                                    {"path", outcome->path},
                                    {"gb_per_s", gb_per_s}});
  }
}

void RunSelfTest(Loop* loop, Transport* transport, SelfTestOptions options,
                 absl::AnyInvocable<void(absl::StatusOr<LinkSpeed>)> done) {
  std::make_shared<SelfTest>(loop, transport, options, std::move(done))->Run();
}

absl::StatusOr<LinkSpeed> RunSelfTestAndWait(Loop* loop, Transport* transport,
                                             SelfTestOptions options) {
  absl::StatusOr<LinkSpeed> outcome = absl::UnknownError("not measured");
  absl::Notification finished;
  loop->Post([&] {
    RunSelfTest(loop, transport, options, [&](absl::StatusOr<LinkSpeed> measured) {
      outcome = std::move(measured);
      finished.Notify();
    });
  });
  finished.WaitForNotification();
  return outcome;
}

}  // namespace longhaul
