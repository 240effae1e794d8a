#include "tools/load_sim/load_world.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/engine/direct_prefill_client.h"
#include "common/engine/direct_worker_client.h"
#include "common/engine/fingerprint.h"
#include "common/model/sharded_kv_pool.h"
#include "common/runtime/virtual_loop.h"
#include "decode_worker/decode_worker.h"
#include "kv_transfer/in_process_transport.h"
#include "kv_transfer/transfer_engine.h"
#include "prefill_worker/prefill_worker.h"
#include "router/core/cluster.h"
#include "router/core/dispatcher.h"
#include "tools/load_sim/timed_executor.h"

namespace longhaul {
namespace {

constexpr int64_t kSettleUs = 1'000'000;  // the router hears of its workers
constexpr int32_t kVocab = 1 << 30;
constexpr int64_t kContextTokens = 1 << 18;

// Nobody reads the KV, so it is as small as the layout allows.
KvLayout SmallLayout(int block_tokens) {
  return {.layers = 2,
          .kv_heads = 1,
          .head_dim = 8,
          .block_tokens = block_tokens,
          .dtype = DType::kBF16};
}

Fingerprint FingerprintOf(const LoadOptions& options) {
  return MakeFingerprint(ModelConfig{}, Hash128{}, SmallLayout(options.block_tokens));
}

// What every worker is made of.
struct Process {
  Process(Loop* loop, const std::shared_ptr<InProcessNetwork>& network, const LoadOptions& options)
      : layout(SmallLayout(options.block_tokens)),
        blocks(options.kv_tokens / options.block_tokens),
        bytes(blocks * layout.block_bytes()),
        pool(layout, blocks, {bytes.data()}),
        transport(loop, network),
        engine(loop, loop, &transport),
        device(loop, layout.layers, options.cost) {}

  const KvLayout layout;
  const int64_t blocks;
  std::vector<std::byte> bytes;
  const ShardedKvPool pool;
  InProcessTransport transport;
  TransferEngine engine;
  TimedExecutor device;
};

struct PrefillProcess : Process {
  PrefillProcess(Loop* loop, const std::shared_ptr<InProcessNetwork>& network,
                 const LoadOptions& options, int number)
      : Process(loop, network, options),
        worker(Options(options, number), loop, &device, &engine, pool) {}
  static PrefillWorkerOptions Options(const LoadOptions& load, int number) {
    PrefillWorkerOptions options;
    options.name = absl::StrCat("prefill-", number);
    options.incarnation = 100 + number;
    options.fingerprint = FingerprintOf(load);
    options.context_tokens_max = kContextTokens;
    options.scheduler.block_tokens = load.block_tokens;
    return options;
  }
  PrefillWorker worker;
};

struct DecodeProcess : Process {
  DecodeProcess(Loop* loop, const std::shared_ptr<InProcessNetwork>& network,
                const LoadOptions& options, int number,
                const std::map<std::string, DirectPrefillClient::Worker>& prefill)
      : Process(loop, network, options),
        client(loop, prefill),
        worker(Options(options, number), loop, &device, &engine, &client, pool) {}
  static DecodeWorkerOptions Options(const LoadOptions& load, int number) {
    DecodeWorkerOptions options;
    options.name = absl::StrCat("decode-", number);
    options.incarnation = 200 + number;
    options.fingerprint = FingerprintOf(load);
    options.vocab = kVocab;
    options.scheduler.context_tokens_max = kContextTokens;
    options.scheduler.batch_sequences_max = load.batch_sequences_max;
    options.scheduler.step_target_us = load.step_target_us;
    options.hand_off.chunk_tokens = load.transfer_chunk_tokens;
    return options;
  }
  DirectPrefillClient client;
  DecodeWorker worker;
};

class Client final : public GenerateListener {
 public:
  Client(Loop* loop, LoadAnswer* answer) : loop_(loop), answer_(answer) {}
  void Ask(Dispatcher& dispatcher, const LoadRequest& request, size_t number) {
    GenerateCall call;
    call.request_id = absl::StrCat(number);
    call.prompt = request.prompt;
    call.output_tokens_max = request.output_tokens;
    call.ignore_eos = true;
    generation_ = dispatcher.Submit(std::move(call), this);
  }
  void OnStart(const GenerateStart&) override { answer_->first_us = loop_->NowUs() - kSettleUs; }
  void OnTokens(absl::Span<const SampledToken> tokens, bool) override {
    answer_->last_us = loop_->NowUs() - kSettleUs;
    answer_->tokens += static_cast<int64_t>(tokens.size());
  }
  void OnEnd(const GenerateEnd&) override { answer_->whole = true; }
  void OnError(const absl::Status& status) override { answer_->error = status; }

 private:
  Loop* const loop_;
  LoadAnswer* const answer_;
  std::unique_ptr<Generation> generation_;
};

}  // namespace

std::vector<LoadAnswer> RunLoad(const LoadOptions& options,
                                const std::vector<LoadRequest>& requests, int64_t drain_us) {
  VirtualLoop loop;
  const auto network = MakeInProcessNetwork();
  ClusterMembers members;
  std::vector<std::unique_ptr<PrefillProcess>> prefill;
  std::map<std::string, DirectPrefillClient::Worker> endpoints;
  for (int i = 0; i < options.prefill_workers; ++i) {
    prefill.push_back(std::make_unique<PrefillProcess>(&loop, network, options, i));
    PrefillWorker& worker = prefill.back()->worker;
    const std::string name = absl::StrCat("prefill-", i);
    endpoints[name] = {&loop, &worker};
    members.prefill.push_back({name, name, MakeDirectStatusClient(&loop, &loop, &worker)});
  }
  std::vector<std::unique_ptr<DecodeProcess>> decode;
  for (int i = 0; i < options.decode_workers; ++i) {
    decode.push_back(std::make_unique<DecodeProcess>(&loop, network, options, i, endpoints));
    const std::string name = absl::StrCat("decode-", i);
    members.decode.push_back(
        {name, name, MakeDirectWorkerClient(&loop, &loop, &decode.back()->worker)});
  }
  std::vector<LoadAnswer> answers(requests.size());
  {
    Cluster cluster(&loop, {}, std::move(members));
    const std::unique_ptr<Policy> policy = *MakePolicy(options.policy, options.policy_options);
    Dispatcher dispatcher(&loop, &cluster, policy.get(), {.context_tokens_max = kContextTokens});
    cluster.Start();
    loop.RunFor(kSettleUs);
    std::vector<std::unique_ptr<Client>> clients;
    int64_t last_due_us = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      clients.push_back(std::make_unique<Client>(&loop, &answers[i]));
      last_due_us = std::max(last_due_us, requests[i].due_us);
      loop.PostAfter(requests[i].due_us, [&, i] { clients[i]->Ask(dispatcher, requests[i], i); });
    }
    loop.RunFor(last_due_us + drain_us);
  }
  // What was posted last must still find its workers.
  loop.RunFor(kSettleUs);
  return answers;
}

}  // namespace longhaul
