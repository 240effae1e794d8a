#include "kv_transfer/simulated_network.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "kv_transfer/simulated_wire.h"

namespace longhaul {
namespace {

constexpr char kAddressPrefix[] = "longhaul-simulated:";

class SimulatedLink final : public Link {
 public:
  SimulatedLink(std::shared_ptr<SimulatedWire> wire, SimulatedWire::End end)
      : wire_(std::move(wire)), end_(end) {}
  ~SimulatedLink() override { wire_->Destroy(end_); }

  void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) override {
    LH_CHECK(end_ == SimulatedWire::kSender, "Send on the receiving end of a link");
    wire_->Send(tag, std::move(pieces), std::move(done));
  }
  void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) override {
    LH_CHECK(end_ == SimulatedWire::kReceiver, "Receive on the sending end of a link");
    wire_->Receive(tag, std::move(pieces), std::move(done));
  }
  void Cancel(TransferTag tag) override { wire_->Cancel(end_, tag); }
  void Close() override { wire_->Close(end_); }
  std::string path() const override { return "simulated"; }

 private:
  const std::shared_ptr<SimulatedWire> wire_;
  const SimulatedWire::End end_;
};

std::pair<std::string, std::string> InOrder(const std::string& a, const std::string& b) {
  return a < b ? std::pair(a, b) : std::pair(b, a);
}

}  // namespace

class SimulatedTransport final : public Transport {
 public:
  SimulatedTransport(SimulatedNetwork* network, std::shared_ptr<SimulatedNetwork::Process> process)
      : network_(network), process_(std::move(process)) {}

  std::string name() const override { return "simulated"; }

  absl::StatusOr<Accepted> Accept() override {
    auto wire = std::make_shared<SimulatedWire>(network_, process_);
    std::erase_if(network_->wires_, [](const auto& entry) { return entry.second.expired(); });
    const uint64_t id = network_->next_wire_++;
    network_->wires_.emplace_back(id, wire);
    Accepted accepted;
    accepted.address = absl::StrCat(kAddressPrefix, id);
    accepted.link = std::make_unique<SimulatedLink>(std::move(wire), SimulatedWire::kReceiver);
    return accepted;
  }

  absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address) override {
    absl::string_view digits = address;
    uint64_t id = 0;
    if (!absl::ConsumePrefix(&digits, kAddressPrefix) || !absl::SimpleAtoi(digits, &id)) {
      return absl::InvalidArgumentError("these bytes are no simulated link address");
    }
    for (const auto& [wire_id, weak] : network_->wires_) {
      auto wire = weak.lock();
      if (wire_id != id || wire == nullptr) continue;
      if (wire->closed(SimulatedWire::kReceiver) ||
          wire->process(SimulatedWire::kReceiver)->crashed) {
        break;
      }
      if (wire->process(SimulatedWire::kSender) != nullptr) {
        return absl::FailedPreconditionError("this address was given to another sender already");
      }
      wire->Connect(process_);
      return std::make_unique<SimulatedLink>(std::move(wire), SimulatedWire::kSender);
    }
    return absl::UnavailableError("the link of this address is gone");
  }

 private:
  SimulatedNetwork* const network_;
  const std::shared_ptr<SimulatedNetwork::Process> process_;
};

SimulatedNetwork::SimulatedNetwork(Loop* loop, SimulatedNetworkOptions options,
                                   absl::AnyInvocable<uint64_t()> random)
    : loop_(loop), options_(options), random_(std::move(random)) {}

SimulatedNetwork::~SimulatedNetwork() = default;

std::unique_ptr<Transport> SimulatedNetwork::MakeTransport(const std::string& process) {
  auto& known = processes_[process];
  if (known == nullptr || known->crashed) {
    known = std::make_shared<Process>();
    known->name = process;
  }
  return std::make_unique<SimulatedTransport>(this, known);
}

void SimulatedNetwork::Crash(const std::string& process) {
  const auto known = processes_.find(process);
  if (known == processes_.end() || std::exchange(known->second->crashed, true)) return;
  for (const auto& wire : LiveWires()) {
    if (wire->process(SimulatedWire::kSender) == nullptr) continue;
    for (const auto end : {SimulatedWire::kReceiver, SimulatedWire::kSender}) {
      if (wire->process(end) == known->second.get()) wire->TellPeerOf(end);
    }
  }
}

void SimulatedNetwork::Stop(const std::string& process) {
  if (const auto known = processes_.find(process); known != processes_.end()) {
    known->second->stopped = true;
  }
}

void SimulatedNetwork::Continue(const std::string& process) {
  if (const auto known = processes_.find(process); known != processes_.end()) {
    known->second->stopped = false;
  }
  ResumeWires();
}

void SimulatedNetwork::Partition(const std::string& a, const std::string& b) {
  partitions_.insert(InOrder(a, b));
}

void SimulatedNetwork::Heal(const std::string& a, const std::string& b) {
  partitions_.erase(InOrder(a, b));
  ResumeWires();
}

void SimulatedNetwork::CloseLinks(const std::string& process) {
  const auto known = processes_.find(process);
  if (known == processes_.end()) return;
  for (const auto& wire : LiveWires()) {
    for (const auto end : {SimulatedWire::kReceiver, SimulatedWire::kSender}) {
      if (wire->process(end) == known->second.get()) wire->Close(end);
    }
  }
}

int64_t SimulatedNetwork::Draw(int64_t bound) {
  return bound == 0 ? 0 : static_cast<int64_t>(random_() % static_cast<uint64_t>(bound + 1));
}

bool SimulatedNetwork::DrawChance(double probability) {
  if (probability == 0) return false;
  return static_cast<double>(random_() >> 11) * 0x1p-53 < probability;
}

void SimulatedNetwork::StopFaults() { options_.loss = options_.corruption = 0; }

bool SimulatedNetwork::DrawLoss() { return DrawChance(options_.loss); }

bool SimulatedNetwork::DrawCorruption() { return DrawChance(options_.corruption); }

bool SimulatedNetwork::Blocked(const Process& a, const Process& b) const {
  return a.stopped || b.stopped || partitions_.contains(InOrder(a.name, b.name));
}

void SimulatedNetwork::ResumeWires() {
  for (const auto& wire : LiveWires()) wire->Resume();
}

std::vector<std::shared_ptr<SimulatedWire>> SimulatedNetwork::LiveWires() {
  std::vector<std::shared_ptr<SimulatedWire>> live;
  for (const auto& [id, weak] : wires_) {
    if (auto wire = weak.lock()) live.push_back(std::move(wire));
  }
  return live;
}

}  // namespace longhaul
