// A prefill worker and decode workers on one VirtualLoop, with KV-sensitive executors and the
// in-process transport: the whole hand-off without threads, for tests of the workers.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/engine/direct_prefill_client.h"
#include "common/engine/kv_stub_executor.h"
#include "common/runtime/virtual_loop.h"
#include "decode_worker/decode_worker.h"
#include "kv_transfer/in_process_transport.h"
#include "prefill_worker/prefill_worker.h"

namespace longhaul {

inline constexpr int32_t kStubVocab = 1000;

inline KvLayout StubLayout() {
  return {.layers = 3, .kv_heads = 2, .head_dim = 8, .block_tokens = 4, .dtype = DType::kBF16};
}

// The pools of `width` ranks.
struct StubMemory {
  explicit StubMemory(int64_t blocks, int width = 1)
      : pool(StubLayout(), blocks, std::vector<std::byte*>(width)) {
    for (int rank = 0; rank < width; ++rank) {
      bytes.emplace_back(blocks * pool.Rank(rank).layout.block_bytes());
      pool.ranks[rank] = bytes.back().data();
    }
  }
  std::vector<std::vector<std::byte>> bytes;
  ShardedKvPool pool;
};

inline PrefillWorkerOptions StubPrefillOptions() {
  PrefillWorkerOptions options;
  options.incarnation = 11;
  options.context_tokens_max = 4096;
  options.scheduler.block_tokens = StubLayout().block_tokens;
  options.scheduler.chunk_tokens_max = 32;
  return options;
}

inline DecodeWorkerOptions StubDecodeOptions() {
  DecodeWorkerOptions options;
  options.incarnation = 22;
  options.vocab = kStubVocab;
  options.local_prefill_tokens_max = 2;
  options.scheduler.context_tokens_max = 4096;
  options.scheduler.prefill.chunk_tokens_max = 16;
  options.hand_off.chunk_tokens = 8;
  options.hand_off.window_chunks = 2;
  return options;
}

// A prefill worker whose loop hangs while its connections live: it takes prompts and says what the
// test lets it say.
class SilentPrefill final : public PrefillEndpoint {
 public:
  std::unique_ptr<PrefillCall> Prefill(PrefillCommand::Open open, OnPrefillEvent on_event,
                                       OnPrefillDone) override {
    transfer_id_ = open.transfer_id();
    on_event_ = std::move(on_event);
    ++calls_open_;
    return std::make_unique<Call>(&calls_open_);
  }
  std::unique_ptr<WorkerCall> WatchStatus(int64_t, OnStatus, OnDone) override { return nullptr; }

  void SayHeartbeat() {
    PrefillEvent event;
    event.set_transfer_id(transfer_id_);
    event.mutable_heartbeat();
    on_event_(std::move(event));
  }
  int calls_open() const { return calls_open_; }

 private:
  struct Call final : PrefillCall {
    explicit Call(int* open) : open(open) {}
    ~Call() override { --*open; }
    void Grant(int) override {}
    int* const open;
  };
  uint32_t transfer_id_ = 0;
  OnPrefillEvent on_event_;
  int calls_open_ = 0;
};

// A device that can hang: from then on no step ends.
class HangingDevice final : public Executor {
 public:
  explicit HangingDevice(Executor* device) : device_(device) {}
  void Execute(StepPlan plan, LayerDone layer_done, Done done) override {
    if (!hangs) return device_->Execute(std::move(plan), std::move(layer_done), std::move(done));
    unended_.emplace_back(std::move(layer_done), std::move(done));
  }
  bool hangs = false;

 private:
  Executor* const device_;
  std::vector<std::pair<LayerDone, Done>> unended_;
};

// One worker of each kind; `prefill` is reached under the address "prefill", `silent` under
// "silent".
struct StubCluster {
  explicit StubCluster(int64_t prefill_blocks = 256, int64_t decode_blocks = 256,
                       DecodeWorkerOptions decode_options = StubDecodeOptions(),
                       PrefillWorkerOptions prefill_options = StubPrefillOptions(),
                       int prefill_width = 1, int decode_width = 1,
                       const CostModel& decode_cost = CostModel())
      : prefill_memory(prefill_blocks, prefill_width),
        decode_memory(decode_blocks, decode_width),
        prefill_executor(&loop, prefill_memory.pool, kStubVocab, CostModel()),
        decode_executor(&loop, decode_memory.pool, kStubVocab, decode_cost),
        network(MakeInProcessNetwork()),
        prefill_transport(&loop, network),
        decode_transport(&loop, network),
        prefill_engine(&loop, &loop, &prefill_transport),
        decode_engine(&loop, &loop, &decode_transport),
        prefill(prefill_options, &loop, &prefill_device, &prefill_engine, prefill_memory.pool),
        client(&loop, {{"prefill", {&loop, &prefill}}, {"silent", {&loop, &silent}}}),
        decode(decode_options, &loop, &decode_executor, &decode_engine, &client,
               decode_memory.pool) {}
  ~StubCluster() { loop.RunUntilIdle(); }

  VirtualLoop loop;
  StubMemory prefill_memory, decode_memory;
  KvStubExecutor prefill_executor, decode_executor;
  HangingDevice prefill_device{&prefill_executor};
  std::shared_ptr<InProcessNetwork> network;
  InProcessTransport prefill_transport, decode_transport;
  TransferEngine prefill_engine, decode_engine;
  PrefillWorker prefill;
  SilentPrefill silent;
  DirectPrefillClient client;
  DecodeWorker decode;
};

// A request under way and what came back.
struct StubReply {
  std::vector<int32_t> tokens;
  GenerateEvent::Timing timing;
  bool finished = false;
  bool done = false;
  absl::Status status;
  std::unique_ptr<WorkerCall> call;
};

inline GenerateRequest StubRequest(std::vector<int32_t> prompt, int output_tokens, bool remote) {
  GenerateRequest request;
  request.set_request_id("r");
  request.mutable_tokens()->Add(prompt.begin(), prompt.end());
  request.set_prompt_tokens(static_cast<int32_t>(prompt.size()));
  request.set_output_tokens_max(output_tokens);
  request.mutable_sampling()->set_top_p(1);
  request.mutable_sampling()->set_repetition_penalty(1);
  request.mutable_sampling()->set_top_logprobs(-1);
  if (remote) {
    request.add_prefill_addresses("prefill");
    request.add_prefill_names("prefill");
  }
  return request;
}

inline std::unique_ptr<StubReply> Ask(DecodeWorker& worker, const GenerateRequest& request) {
  auto reply = std::make_unique<StubReply>();
  StubReply* const raw = reply.get();
  reply->call = worker.Generate(
      request,
      [raw](const GenerateEvent& event) {
        for (const auto& token : event.tokens()) raw->tokens.push_back(token.token());
        if (event.has_timing()) raw->timing = event.timing();
        if (event.has_finished()) raw->finished = true;
      },
      [raw](const absl::Status& status) {
        raw->done = true;
        raw->status = status;
      });
  return reply;
}

inline std::vector<int32_t> StubPrompt(int tokens, int32_t seed) {
  std::vector<int32_t> prompt(tokens);
  for (int i = 0; i < tokens; ++i) prompt[i] = 1 + (seed * 7919 + i * 104729) % (kStubVocab - 1);
  return prompt;
}

}  // namespace longhaul
