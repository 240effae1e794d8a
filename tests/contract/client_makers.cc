#include "tests/contract/client_makers.h"

#include <map>
#include <type_traits>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/check.h"
#include "common/engine/direct_prefill_client.h"
#include "common/engine/direct_worker_client.h"
#include "common/runtime/run_and_wait.h"
#include "common/runtime/thread_loop.h"
#include "common/runtime/virtual_loop.h"
#include "decode_worker/decode_service.h"
#include "decode_worker/grpc_prefill_client.h"
#include "prefill_worker/prefill_service.h"
#include "router/core/grpc_worker_client.h"
#include "tools/sim/control_plane.h"

namespace longhaul {
namespace {

constexpr int64_t kAwaitUs = 30'000'000;
constexpr char kWorker[] = "worker";
constexpr char kNobody[] = "nobody";

template <typename Door>
constexpr bool kIsPrefill = std::is_same_v<Door, PrefillDoor>;
// What an owner holds: one client of one worker, or one client of all prefill workers.
template <typename Door>
using ClientOf = std::conditional_t<kIsPrefill<Door>, PrefillClient, WorkerClient>;

template <typename Door>
std::unique_ptr<NearStream> OpenAt(ClientOf<Door>& client, const std::string& address, int number,
                                   OnWord on_word, OnEnd on_end) {
  if constexpr (kIsPrefill<Door>) {
    return Door::Open(client, address, number, std::move(on_word), std::move(on_end));
  } else {
    return Door::Open(client, number, std::move(on_word), std::move(on_end));
  }
}

// Owner and worker on threads of their own.
template <typename Door>
class ThreadedWorld : public ClientWorld {
 public:
  const std::vector<std::shared_ptr<FarStream>>& streams() const override {
    return worker_.streams;
  }
  void OnOwner(absl::FunctionRef<void()> body) override { RunAndWait(*owner_, body); }
  void OnWorker(absl::FunctionRef<void()> body) override { RunAndWait(worker_loop_, body); }
  bool AwaitOwner(absl::FunctionRef<bool()> condition) override {
    return Await(*owner_, condition);
  }
  bool AwaitWorker(absl::FunctionRef<bool()> condition) override {
    return Await(worker_loop_, condition);
  }
  void Settle() override {
    absl::SleepFor(absl::Milliseconds(50));
    OnWorker([] {});
    OnOwner([] {});
  }

 protected:
  static bool Await(Loop& loop, absl::FunctionRef<bool()> condition) {
    const int64_t deadline_us = loop.NowUs() + kAwaitUs;
    bool holds = false;
    while (true) {
      RunAndWait(loop, [&] { holds = condition(); });
      if (holds || loop.NowUs() > deadline_us) return holds;
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  typename Door::Worker worker_;
  ThreadLoop worker_loop_{{.name = "worker"}};
  const std::shared_ptr<ThreadLoop> owner_ =
      std::make_shared<ThreadLoop>(ThreadLoopOptions{.name = "owner"});
};

template <typename Door>
class DirectWorld final : public ThreadedWorld<Door> {
 public:
  DirectWorld() {
    Loop* const owner = this->owner_.get();
    if constexpr (kIsPrefill<Door>) {
      client_ = std::make_unique<DirectPrefillClient>(
          owner, std::map<std::string, DirectPrefillClient::Worker>{
                     {kWorker, {&this->worker_loop_, &this->worker_}}});
    } else {
      client_ = MakeDirectWorkerClient(owner, &this->worker_loop_, &this->worker_);
    }
  }
  std::unique_ptr<NearStream> Open(int number, OnWord on_word, OnEnd on_end) override {
    return OpenAt<Door>(*client_, kWorker, number, std::move(on_word), std::move(on_end));
  }
  std::unique_ptr<NearStream> OpenToNobody(OnWord on_word, OnEnd on_end) override {
    return OpenAt<Door>(*client_, kNobody, 1, std::move(on_word), std::move(on_end));
  }
  void Kill() override { LH_CHECK(false, "a worker of this process lives as long as it"); }

 private:
  std::unique_ptr<ClientOf<Door>> client_;
};

// Over loopback, on a port that the kernel chose.
template <typename Door>
class GrpcWorld final : public ThreadedWorld<Door> {
 public:
  GrpcWorld() {
    service_ = Serve();
    address_ = service_->address();
    nobody_ = Serve()->address();  // was somebody's a moment ago
    if constexpr (kIsPrefill<Door>) {
      client_ = MakeGrpcPrefillClient(this->owner_);
    } else {
      client_ = MakeGrpcWorkerClient(this->owner_, address_);
      client_to_nobody_ = MakeGrpcWorkerClient(this->owner_, nobody_);
    }
  }
  ~GrpcWorld() override {
    this->OnOwner([&] {
      client_.reset();
      client_to_nobody_.reset();
    });
    service_.reset();
  }

  std::unique_ptr<NearStream> Open(int number, OnWord on_word, OnEnd on_end) override {
    return OpenAt<Door>(*client_, address_, number, std::move(on_word), std::move(on_end));
  }
  std::unique_ptr<NearStream> OpenToNobody(OnWord on_word, OnEnd on_end) override {
    ClientOf<Door>& client = kIsPrefill<Door> ? *client_ : *client_to_nobody_;
    return OpenAt<Door>(client, nobody_, 1, std::move(on_word), std::move(on_end));
  }
  void Kill() override { service_.reset(); }

 private:
  std::unique_ptr<RpcServer> Serve() {
    absl::StatusOr<std::unique_ptr<RpcServer>> service;
    if constexpr (kIsPrefill<Door>) {
      service = StartPrefillService("127.0.0.1:0", &this->worker_loop_, &this->worker_);
    } else {
      service = StartDecodeService("127.0.0.1:0", &this->worker_loop_, &this->worker_);
    }
    LH_CHECK(service.ok(), service.status().ToString());
    return *std::move(service);
  }

  std::unique_ptr<RpcServer> service_;
  std::string address_, nobody_;
  std::unique_ptr<ClientOf<Door>> client_, client_to_nobody_;
};

template <typename Door>
class SimulatedWorld final : public ClientWorld {
 public:
  SimulatedWorld() {
    control_.Up("owner", &loop_, nullptr, nullptr);
    if constexpr (kIsPrefill<Door>) {
      control_.Up(kWorker, &loop_, nullptr, &worker_);
      client_ = control_.MakePrefillClient("owner");
    } else {
      control_.Up(kWorker, &loop_, &worker_, nullptr);
      client_ = control_.DecodeClient("owner", kWorker);
      client_to_nobody_ = control_.DecodeClient("owner", kNobody);
    }
  }

  std::unique_ptr<NearStream> Open(int number, OnWord on_word, OnEnd on_end) override {
    return OpenAt<Door>(*client_, kWorker, number, std::move(on_word), std::move(on_end));
  }
  std::unique_ptr<NearStream> OpenToNobody(OnWord on_word, OnEnd on_end) override {
    ClientOf<Door>& client = kIsPrefill<Door> ? *client_ : *client_to_nobody_;
    return OpenAt<Door>(client, kNobody, 1, std::move(on_word), std::move(on_end));
  }
  const std::vector<std::shared_ptr<FarStream>>& streams() const override {
    return worker_.streams;
  }
  void Kill() override { control_.Down(kWorker); }
  void OnOwner(absl::FunctionRef<void()> body) override { body(); }
  void OnWorker(absl::FunctionRef<void()> body) override { body(); }
  bool AwaitOwner(absl::FunctionRef<bool()> condition) override {
    const int64_t deadline_us = loop_.NowUs() + kAwaitUs;
    while (!condition()) {
      if (loop_.NowUs() > deadline_us || !loop_.RunOne()) return false;
    }
    return true;
  }
  bool AwaitWorker(absl::FunctionRef<bool()> condition) override { return AwaitOwner(condition); }
  void Settle() override { loop_.RunFor(1'000'000); }

 private:
  typename Door::Worker worker_;
  VirtualLoop loop_;
  Dice dice_{1};
  // Messages cross at very different speeds, and keep their order all the same.
  const Scenario scenario_ = [] {
    Scenario scenario;
    scenario.rpc_jitter_us = 5'000;
    return scenario;
  }();
  ControlPlane control_{&loop_, &dice_, scenario_, [](const char*, uint64_t) {}};
  std::unique_ptr<ClientOf<Door>> client_, client_to_nobody_;
};

template <typename World>
std::unique_ptr<ClientWorld> Make() {
  return std::make_unique<World>();
}

}  // namespace

std::vector<ClientMaker> RemoteClientMakers() {
  return {{"GenerateOverGrpc", Make<GrpcWorld<GenerateDoor>>},
          {"StatusOverGrpc", Make<GrpcWorld<StatusDoor>>},
          {"PrefillOverGrpc", Make<GrpcWorld<PrefillDoor>>},
          {"GenerateSimulated", Make<SimulatedWorld<GenerateDoor>>},
          {"StatusSimulated", Make<SimulatedWorld<StatusDoor>>},
          {"PrefillSimulated", Make<SimulatedWorld<PrefillDoor>>}};
}

std::vector<ClientMaker> AllClientMakers() {
  std::vector<ClientMaker> makers = RemoteClientMakers();
  makers.push_back({"GenerateDirect", Make<DirectWorld<GenerateDoor>>});
  makers.push_back({"StatusDirect", Make<DirectWorld<StatusDoor>>});
  makers.push_back({"PrefillDirect", Make<DirectWorld<PrefillDoor>>});
  return makers;
}

}  // namespace longhaul
