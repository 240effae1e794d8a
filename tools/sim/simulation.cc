#include "tools/sim/simulation.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/hash.h"
#include "common/runtime/virtual_loop.h"
#include "router/core/cluster.h"
#include "router/core/dispatcher.h"
#include "router/policy/policy.h"
#include "tools/sim/processes.h"
#include "tools/sim/reference.h"

namespace longhaul {
namespace {

constexpr int64_t kSettleUs =
    300'000'000;  // every request must have ended this long after the last fault
constexpr int64_t kQuietUs = 60'000'000;  // and everything must be free this long after that

// One client: asks, listens, perhaps leaves.
class Client final : public GenerateListener {
 public:
  Client(int number, std::vector<int32_t> prompt, int64_t output_tokens)
      : number(number), prompt(std::move(prompt)), output_tokens(output_tokens) {}

  void Ask(Dispatcher& dispatcher) {
    asked = true;
    GenerateCall call;
    call.request_id = absl::StrCat("c", number);
    call.prompt = prompt;
    call.output_tokens_max = output_tokens;
    call.ignore_eos = true;
    generation = dispatcher.Submit(std::move(call), this);
  }
  void Leave() {
    if (asked && outcomes == 0) aborted = true;
    generation.reset();
  }

  void OnStart(const GenerateStart&) override { ++starts; }
  void OnTokens(absl::Span<const SampledToken> sampled, bool) override {
    for (const SampledToken& token : sampled) tokens.push_back(token.token);
  }
  void OnEnd(const GenerateEnd&) override { ++outcomes; }
  void OnError(const absl::Status& status) override {
    ++outcomes;
    error = status;
  }

  const int number;
  const std::vector<int32_t> prompt;
  const int64_t output_tokens;
  std::unique_ptr<Generation> generation;
  std::vector<int32_t> tokens;
  absl::Status error;
  int starts = 0;
  int outcomes = 0;
  bool asked = false;
  bool aborted = false;
};

class World {
 public:
  explicit World(const Scenario& scenario)
      : scenario_(scenario),
        dice_(Hash64Of(&scenario.seed, sizeof(scenario.seed))),
        network_(&loop_, scenario.network, [this] { return dice_.Bits(); }),
        control_(&loop_, &dice_, scenario_,
                 [this](const char* what, uint64_t value) { Trace(what, value); }) {
    const SimWorld world{&loop_, &dice_, &scenario_, &network_, &control_};
    control_.Up("router", &loop_, nullptr, nullptr);
    for (int i = 0; i < scenario.prefill_workers; ++i) {
      prefill_.push_back(std::make_unique<SimPrefill>(absl::StrCat("prefill-", i), world));
    }
    for (int i = 0; i < scenario.decode_workers; ++i) {
      decode_.push_back(std::make_unique<SimDecode>(absl::StrCat("decode-", i), world));
    }
    ClusterMembers members;
    for (const auto& process : prefill_) {
      process->Start();
      members.prefill.push_back({process->name(), process->name(),
                                 control_.PrefillStatusClient("router", process->name())});
    }
    for (const auto& process : decode_) {
      process->Start();
      members.decode.push_back(
          {process->name(), process->name(), control_.DecodeClient("router", process->name())});
    }
    cluster_ = std::make_unique<Cluster>(&loop_, ClusterOptions{}, std::move(members));
    policy_ = *MakePolicy(scenario.policy,
                          PolicyOptions{.long_tokens = 100, .prefix_blocks_max = 1 << 14});
    dispatcher_ =
        std::make_unique<Dispatcher>(&loop_, cluster_.get(), policy_.get(),
                                     DispatcherOptions{.context_tokens_max = kSimContextTokens});
    cluster_->Start();
  }

  // What was posted last must still find its links and its network.
  ~World() {
    for (const auto& client : clients_) client->generation.reset();
    dispatcher_.reset();
    cluster_.reset();
    for (SimProcess* process : Processes()) {
      if (process->running()) process->Kill();
    }
    loop_.RunFor(1'000'000);
  }

  SimulationResult Run() {
    loop_.RunFor(500'000);  // the router hears of its workers
    PlanLoad();
    PlanFaults();
    loop_.RunFor(scenario_.load_us);
    Heal();
    for (int64_t waited_us = 0; waited_us < kSettleUs && !AllEnded(); waited_us += 1'000'000)
      loop_.RunFor(1'000'000);
    CheckClients();
    for (SimProcess* process : Processes()) process->GoOn();
    Probe();
    loop_.RunFor(kQuietUs);
    CheckQuiet();
    result_.trace_hash = trace_;
    result_.virtual_us = loop_.NowUs();
    result_.bytes_corrupted = network_.counters().bytes_corrupted;
    result_.messages_lost = network_.counters().messages_lost;
    return std::move(result_);
  }

 private:
  void Trace(const char* what, uint64_t value) {
    const uint64_t words[4] = {trace_, static_cast<uint64_t>(loop_.NowUs()),
                               Hash64Of(absl::string_view(what)), value};
    trace_ = Hash64Of(words, sizeof(words));
  }

  std::vector<int32_t> DrawPrompt() {
    std::vector<int32_t> prompt;
    if (!clients_.empty() && dice_.Chance(scenario_.shared_prefix)) {
      const std::vector<int32_t>& other =
          clients_[dice_.Between(0, static_cast<int64_t>(clients_.size()) - 1)]->prompt;
      prompt.assign(other.begin(),
                    other.begin() + dice_.Between(1, static_cast<int64_t>(other.size())));
    }
    const int64_t length = dice_.Between(1, dice_.Chance(0.3) ? scenario_.prompt_tokens_max : 40);
    while (static_cast<int64_t>(prompt.size()) < length) {
      prompt.push_back(static_cast<int32_t>(dice_.Between(1, kSimVocab - 1)));
    }
    return prompt;
  }

  Client* AddClient() {
    clients_.push_back(std::make_unique<Client>(static_cast<int>(clients_.size()), DrawPrompt(),
                                                dice_.Between(1, scenario_.output_tokens_max)));
    return clients_.back().get();
  }

  void PlanLoad() {
    for (int i = 0; i < scenario_.requests; ++i) {
      Client* const client = AddClient();
      const int64_t at_us = dice_.Between(0, scenario_.load_us);
      loop_.PostAfter(at_us, [this, client] {
        Trace("ask", static_cast<uint64_t>(client->number));
        client->Ask(*dispatcher_);
      });
      if (dice_.Chance(scenario_.client_aborts)) {
        loop_.PostAfter(at_us + dice_.Between(1, 60'000), [this, client] {
          Trace("leave", static_cast<uint64_t>(client->number));
          client->Leave();
        });
      }
    }
  }

  SimProcess* AnyProcess() {
    const int64_t all = scenario_.prefill_workers + scenario_.decode_workers;
    const int64_t pick = dice_.Between(0, all - 1);
    if (pick < scenario_.prefill_workers) return prefill_[pick].get();
    return decode_[pick - scenario_.prefill_workers].get();
  }

  void PlanFaults() {
    for (int i = 0; i < scenario_.crashes; ++i) {
      SimProcess* const process = AnyProcess();
      const int64_t at_us = dice_.Between(0, scenario_.load_us);
      loop_.PostAfter(at_us, [this, process] {
        if (!process->running()) return;
        Trace("kill", 0);
        ++result_.kills;
        CountFailures();
        process->Kill();
      });
      loop_.PostAfter(at_us + dice_.Between(1, 300'000), [this, process] {
        if (process->running()) return;
        Trace("start", 0);
        process->Start();
      });
    }
    for (int i = 0; i < scenario_.partitions; ++i) {
      const std::string p = prefill_[dice_.Between(0, scenario_.prefill_workers - 1)]->name();
      const std::string d = decode_[dice_.Between(0, scenario_.decode_workers - 1)]->name();
      const int64_t at_us = dice_.Between(0, scenario_.load_us);
      loop_.PostAfter(at_us, [this, p, d] { network_.Partition(p, d); });
      loop_.PostAfter(at_us + dice_.Between(1, 1'500'000), [this, p, d] { network_.Heal(p, d); });
    }
    for (int i = 0; i < scenario_.stops; ++i) {
      const std::string name = AnyProcess()->name();
      const int64_t at_us = dice_.Between(0, scenario_.load_us);
      loop_.PostAfter(at_us, [this, name] { network_.Stop(name); });
      loop_.PostAfter(at_us + dice_.Between(1, 500'000), [this, name] { network_.Continue(name); });
    }
    for (int i = 0; i < scenario_.hangs; ++i) {
      SimProcess* const process = AnyProcess();
      loop_.PostAfter(dice_.Between(0, scenario_.load_us), [this, process] {
        if (!process->running()) return;
        Trace("hang", 0);
        ++result_.hangs;
        process->Hang();
      });
    }
  }

  void Heal() {
    control_.StopFaults();
    network_.StopFaults();
    for (const auto& prefill : prefill_) {
      for (const auto& decode : decode_) network_.Heal(prefill->name(), decode->name());
    }
    for (SimProcess* process : Processes()) {
      network_.Continue(process->name());
      if (!process->running()) process->Start();
    }
  }

  std::vector<SimProcess*> Processes() {
    std::vector<SimProcess*> all;
    for (const auto& process : prefill_) all.push_back(process.get());
    for (const auto& process : decode_) all.push_back(process.get());
    return all;
  }

  bool AllEnded() const {
    for (const auto& client : clients_) {
      if (!client->asked || (client->outcomes == 0 && !client->aborted)) return false;
    }
    return true;
  }

  void Violation(const std::string& what) { result_.violations.push_back(what); }

  void CheckClient(const Client& client, bool errors_allowed) {
    const std::string who = absl::StrCat("client ", client.number);
    const std::vector<int32_t> expected = ReferenceTokens(client.prompt, client.output_tokens);
    const bool prefix = client.tokens.size() <= expected.size() &&
                        std::equal(client.tokens.begin(), client.tokens.end(), expected.begin());
    if (!prefix) Violation(who + " got wrong tokens");
    if (client.aborted) {
      ++result_.aborted;
      return;
    }
    if (client.outcomes != 1) {
      Violation(absl::StrCat(who, " had ", client.outcomes, " outcomes"));
    } else if (!client.error.ok()) {
      ++result_.failed;
      if (!errors_allowed)
        Violation(absl::StrCat(who, " failed without a fault: ", client.error.ToString()));
    } else {
      ++result_.finished;
      if (client.tokens != expected) Violation(who + " lost tokens");
      if (client.starts != 1) Violation(absl::StrCat(who, " started ", client.starts, " times"));
    }
    Trace("outcome", static_cast<uint64_t>(client.error.code()) * 1000 + client.tokens.size());
  }

  void CheckClients() {
    for (const auto& client : clients_) CheckClient(*client, !scenario_.Harmless());
    checked_ = clients_.size();
  }

  // With all faults gone every worker must serve again.
  void Probe() {
    loop_.RunFor(20'000'000);
    for (int i = 0; i < 2 * scenario_.decode_workers; ++i) AddClient()->Ask(*dispatcher_);
    loop_.RunFor(30'000'000);
    for (size_t i = checked_; i < clients_.size(); ++i)
      CheckClient(*clients_[i], /*errors_allowed=*/false);
  }

  void CountFailures() {
    for (const auto& decode : decode_) {
      if (!decode->running()) continue;
      const DecodeWorkerCounters& counters = decode->worker()->counters();
      result_.attempts_failed += counters.hand_off_attempts_failed;
      result_.preemptions += decode->worker()->preemptions();
      digest_mismatches_ += counters.digest_mismatches;
    }
    for (const auto& prefill : prefill_) {
      if (prefill->running()) abandoned_ += prefill->worker()->counters().prompts_abandoned;
    }
  }

  void CheckQuiet() {
    CountFailures();
    for (SimProcess* process : Processes()) {
      if (const std::string left = process->Unquiet(); !left.empty()) Violation(left);
    }
    if (dispatcher_->stats().requests_now != 0) {
      Violation(absl::StrCat("the dispatcher counts ", dispatcher_->stats().requests_now,
                             " requests at rest"));
    }
    const SimulatedNetwork::Counters& wire = network_.counters();
    if (wire.bytes_written_after_done > 0) {
      Violation(absl::StrCat(wire.bytes_written_after_done,
                             " bytes were written into blocks that were given away"));
    }
    if (wire.sends_changed > 0) {
      Violation(absl::StrCat(wire.sends_changed, " sends read blocks that were given away"));
    }
    if (wire.receives_overlapping > 0) {
      Violation(absl::StrCat(wire.receives_overlapping,
                             " receives were posted into blocks that others still write"));
    }
    // Whoever gives a prompt up says so; only one that hangs leaves it to its silence.
    if (abandoned_ > 0 && scenario_.hangs == 0) {
      Violation(absl::StrCat(abandoned_, " prompts were left without a cancel"));
    }
    const bool damaged =
        network_.counters().bytes_corrupted > 0 || scenario_.network.sender_close_tears;
    if (digest_mismatches_ > 0 && !damaged) {
      Violation(absl::StrCat(digest_mismatches_, " digests failed although no byte was damaged"));
    }
  }

  const Scenario scenario_;
  VirtualLoop loop_;
  Dice dice_;
  SimulatedNetwork network_;
  ControlPlane control_;
  std::vector<std::unique_ptr<SimPrefill>> prefill_;
  std::vector<std::unique_ptr<SimDecode>> decode_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<std::unique_ptr<Client>> clients_;
  size_t checked_ = 0;
  int64_t digest_mismatches_ = 0;
  int64_t abandoned_ = 0;
  uint64_t trace_ = 0;
  SimulationResult result_;
};

}  // namespace

SimulationResult Simulate(const Scenario& scenario) { return World(scenario).Run(); }

}  // namespace longhaul
