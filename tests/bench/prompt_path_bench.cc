// How long a prompt takes from its last byte in the router's socket to the prefill worker's first
// step, by stages. Router, decode worker and prefill worker are the production ones with loops of
// their own, and talk HTTP and gRPC over loopback; only the model is missing, and no KV is granted.
// Prints a line for each kind of prompt: medians, and the 90th percentile of the whole.
//
//   prompt_path_bench [--tokens=32768,131072] [--repeats=40] [--spin_us=0] [--block_tokens=64]
//                     [--model=FILE]
//
// With a model its tokenizer is used and prompts are sent as text, too. The stages end where one
// service calls the door to the next:
//   router    last byte to be written -> Generate called (HTTP, JSON or tokenizer, placement)
//   generate  -> Generate arrived at the decode worker's loop (gRPC)
//   decode    -> Prefill called (checks, admission, link)
//   prefill   -> Prefill arrived at the prefill worker's loop (gRPC)
//   first     -> first step handed to the executor (admission, scheduling)
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/engine/fingerprint.h"
#include "common/model/model_file.h"
#include "common/rpc/rpc_server.h"
#include "common/runtime/run_and_wait.h"
#include "common/runtime/thread_loop.h"
#include "decode_worker/decode_service.h"
#include "decode_worker/decode_worker.h"
#include "decode_worker/grpc_prefill_client.h"
#include "kv_transfer/in_process_transport.h"
#include "prefill_worker/prefill_service.h"
#include "prefill_worker/prefill_worker.h"
#include "router/core/grpc_worker_client.h"
#include "router/core/router_app.h"
#include "tests/bench/traced_doors.h"

ABSL_FLAG(std::vector<std::string>, tokens, std::vector<std::string>({"32768", "131072"}),
          "Prompt lengths; of text, as many bytes as the tokenizer makes about so many of.");
ABSL_FLAG(int, repeats, 40, "Prompts of each kind; a quarter more come before.");
ABSL_FLAG(int64_t, spin_us, 0, "How long the workers' loops poll before they sleep.");
ABSL_FLAG(int, block_tokens, 64, "As on a GPU.");
ABSL_FLAG(std::string, model, "", "GGUF file or Hugging Face folder whose tokenizer is used.");

namespace longhaul {
namespace {

constexpr std::array<const char*, kStamps - 1> kStages = {"router", "generate", "decode", "prefill",
                                                          "first"};
constexpr int kVocab = 128'256;  // Llama 3's: ids of up to six digits
constexpr int64_t kContextTokens = 1 << 18;

// Computes nothing, in no time; its first step of a prompt is what the benchmark waits for.
class NoModel final : public Executor {
 public:
  NoModel(Loop* loop, Trace* trace, int layers) : loop_(loop), trace_(trace), layers_(layers) {}
  void Execute(StepPlan plan, LayerDone layer_done, Done done) override {
    if (!trace_->stepped->HasBeenNotified()) {
      trace_->Mark(kStep);
      trace_->stepped->Notify();
    }
    loop_->Post([this, plan = std::move(plan), layer_done = std::move(layer_done),
                 done = std::move(done)]() mutable {
      for (int layer = 0; layer < layers_; ++layer) layer_done(layer);
      StepResult result{.step = plan.step, .sequences = {}, .compute_us = 1};
      for (const StepSequence& sequence : plan.sequences) {
        result.sequences.push_back({.id = sequence.id, .sampled = {}, .status = {}});
      }
      done(std::move(result));
    });
  }

 private:
  Loop* const loop_;
  Trace* const trace_;
  const int layers_;
};

KvLayout SmallLayout() {
  return {.layers = 1,
          .kv_heads = 1,
          .head_dim = 8,
          .block_tokens = absl::GetFlag(FLAGS_block_tokens),
          .dtype = DType::kBF16};
}

Fingerprint PlainFingerprint() {
  Fingerprint fingerprint;
  fingerprint.set_block_tokens(absl::GetFlag(FLAGS_block_tokens));
  fingerprint.set_protocol_version(kProtocolVersion);
  return fingerprint;
}

// What both kinds of worker stand on.
struct WorkerGround {
  WorkerGround(const char* name, const std::shared_ptr<InProcessNetwork>& network)
      : loop(std::make_shared<ThreadLoop>(
            ThreadLoopOptions{.name = name, .spin_us = absl::GetFlag(FLAGS_spin_us)})),
        transfer_loop({.name = absl::StrCat(name, "-kv")}),
        transport(&transfer_loop, network),
        bytes(2 * kContextTokens * SmallLayout().token_bytes()),
        pool(SmallLayout(), 2 * kContextTokens / SmallLayout().block_tokens, {bytes.data()}) {
    RunAndWait(*loop, [this] {
      engine = std::make_unique<TransferEngine>(loop.get(), &transfer_loop, &transport);
    });
  }
  void Stop() {
    RunAndWait(*loop, [this] { engine.reset(); });
    transfer_loop.Stop();
    loop->Stop();
  }

  std::shared_ptr<ThreadLoop> loop;
  ThreadLoop transfer_loop;
  InProcessTransport transport;
  std::vector<std::byte> bytes;
  ShardedKvPool pool;
  std::unique_ptr<TransferEngine> engine;
};

// The three services; `trace` follows the request under way.
class TracedCluster {
 public:
  TracedCluster(Trace* trace, const RouterModel& model)
      : network_(MakeInProcessNetwork()),
        prefill_ground_("prefill", network_),
        decode_ground_("decode", network_) {
    PrefillWorkerOptions prefill_options;
    prefill_options.incarnation = 11;
    prefill_options.fingerprint = PlainFingerprint();
    prefill_options.context_tokens_max = kContextTokens;
    prefill_options.scheduler.block_tokens = SmallLayout().block_tokens;
    RunAndWait(*prefill_ground_.loop, [&] {
      model_ = std::make_unique<NoModel>(prefill_ground_.loop.get(), trace, SmallLayout().layers);
      prefill_ =
          std::make_unique<PrefillWorker>(prefill_options, prefill_ground_.loop.get(), model_.get(),
                                          prefill_ground_.engine.get(), prefill_ground_.pool);
    });
    endpoint_ = std::make_unique<TracedPrefillEndpoint>(trace, prefill_.get());
    prefill_service_ =
        *StartPrefillService("127.0.0.1:0", prefill_ground_.loop.get(), endpoint_.get());

    DecodeWorkerOptions decode_options;
    decode_options.incarnation = 22;
    decode_options.fingerprint = PlainFingerprint();
    decode_options.vocab = static_cast<int64_t>(model.tokenizer.tokens.size());
    decode_options.scheduler.context_tokens_max = kContextTokens;
    decode_options.hand_off.chunk_tokens = 2048;
    decode_options.hand_off.window_chunks = 0;  // no KV is wanted
    RunAndWait(*decode_ground_.loop, [&] {
      prefill_client_ =
          std::make_unique<TracedPrefillClient>(trace, MakeGrpcPrefillClient(decode_ground_.loop));
      decode_ = std::make_unique<DecodeWorker>(decode_options, decode_ground_.loop.get(), nullptr,
                                               decode_ground_.engine.get(), prefill_client_.get(),
                                               decode_ground_.pool);
    });
    decode_door_ = std::make_unique<TracedWorkerClient>(trace, kGenerateCame, decode_.get());
    decode_service_ =
        *StartDecodeService("127.0.0.1:0", decode_ground_.loop.get(), decode_door_.get());

    RouterOptions router_options;
    router_options.served_model_name = "none";
    router_options.http.port = 0;
    router_options.policy_options.local_prefill = false;
    router_options.policy_options.wait_limit_us = 1e12;
    router_ = *RouterApp::Start(router_options, model, [&](const std::shared_ptr<Loop>& loop) {
      const std::string& decode_at = decode_service_->address();
      const std::string& prefill_at = prefill_service_->address();
      ClusterMembers members;
      members.decode.push_back(
          {"decode-0", decode_at,
           std::make_unique<TracedWorkerClient>(trace, kGenerateCalled,
                                                MakeGrpcWorkerClient(loop, decode_at))});
      members.prefill.push_back(
          {"prefill-0", prefill_at, MakeGrpcPrefillStatusClient(loop, prefill_at)});
      return members;
    });
    while (!router_->Ready().ok()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }

  ~TracedCluster() {
    router_->Shutdown(0);
    decode_service_->Stop(0);
    RunAndWait(*decode_ground_.loop, [this] {
      decode_.reset();
      prefill_client_.reset();
    });
    prefill_service_->Stop(0);
    RunAndWait(*prefill_ground_.loop, [this] { prefill_.reset(); });
    decode_ground_.Stop();
    prefill_ground_.Stop();
  }

  std::string http_address() const { return router_->http_address(); }
  void WaitUntilIdle() {
    bool idle = false;
    while (!idle) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      bool decode_idle = false, prefill_idle = false;
      RunAndWait(*decode_ground_.loop, [&] { decode_idle = decode_->idle(); });
      RunAndWait(*prefill_ground_.loop, [&] { prefill_idle = prefill_->idle(); });
      idle = decode_idle && prefill_idle;
    }
  }

 private:
  std::shared_ptr<InProcessNetwork> network_;
  WorkerGround prefill_ground_, decode_ground_;
  std::unique_ptr<NoModel> model_;
  std::unique_ptr<PrefillWorker> prefill_;
  std::unique_ptr<TracedPrefillEndpoint> endpoint_;
  std::unique_ptr<RpcServer> prefill_service_;
  std::unique_ptr<PrefillClient> prefill_client_;
  std::unique_ptr<DecodeWorker> decode_;
  std::unique_ptr<TracedWorkerClient> decode_door_;
  std::unique_ptr<RpcServer> decode_service_;
  std::unique_ptr<RouterApp> router_;
};

int ConnectTo(const std::string& address) {
  const std::vector<std::string> parts = absl::StrSplit(address, ':');
  int port = 0;
  LH_CHECK(absl::SimpleAtoi(parts[1], &port), "a port");
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, parts[0].c_str(), &to.sin_addr);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  LH_CHECK(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0, "connect");
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

// Sends one prompt, waits for its first step and leaves.
void AskOnce(TracedCluster& cluster, Trace& trace, const std::string& prompt_json) {
  const std::string body =
      absl::StrCat(R"({"stream":true,"max_tokens":1,"temperature":0,"prompt":)", prompt_json, "}");
  const std::string message =
      absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(),
                   "\r\n\r\n", body);
  trace.stepped = std::make_unique<absl::Notification>();
  const int fd = ConnectTo(cluster.http_address());
  for (size_t sent = 0; sent < message.size();) {
    const size_t left = message.size() - sent;
    // The last byte by itself: this thread may sleep after a write, but not between these two.
    if (left == 1) trace.Mark(kSent);
    const ssize_t more = write(fd, message.data() + sent, std::max<size_t>(left - 1, 1));
    LH_CHECK(more > 0, "the router hung up");
    sent += more;
  }
  if (!trace.stepped->WaitForNotificationWithTimeout(absl::Seconds(10))) {
    char answer[2048] = {};
    LH_CHECK(recv(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT) < 0, answer);
    LH_CHECK(false, "neither a step nor an answer came within 10 s");
  }
  close(fd);
  cluster.WaitUntilIdle();
}

double Share(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

template <typename MakePrompt>
void Measure(TracedCluster& cluster, Trace& trace, const std::string& what,
             MakePrompt make_prompt) {
  const int repeats = absl::GetFlag(FLAGS_repeats);
  std::array<std::vector<double>, kStamps> ms;  // of the stages, then of the whole
  for (int i = -repeats / 4; i < repeats; ++i) {
    AskOnce(cluster, trace, make_prompt());
    if (i < 0) continue;
    for (int stage = 0; stage + 1 < kStamps; ++stage) {
      ms[stage].push_back(static_cast<double>(trace.at_ns[stage + 1] - trace.at_ns[stage]) / 1e6);
    }
    ms.back().push_back(static_cast<double>(trace.at_ns[kStep] - trace.at_ns[kSent]) / 1e6);
  }
  std::printf("%-14s", what.c_str());
  for (const std::vector<double>& stage : ms) std::printf(" %8.3f", Share(stage, 0.5));
  std::printf(" %8.3f\n", Share(ms.back(), 0.9));
  std::fflush(stdout);
}

TokenizerData MadeUpTokenizer() {
  TokenizerData data;
  for (int id = 0; id < kVocab; ++id) data.tokens.push_back(absl::StrCat("t", id));
  data.kinds.assign(kVocab, TokenKind::kNormal);
  return data;
}

// Debian's licences, over and over.
std::string Prose(size_t bytes) {
  std::string all;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/share/common-licenses")) {
    std::ifstream file(entry.path(), std::ios::binary);
    if (!entry.is_symlink()) all.append(std::istreambuf_iterator<char>(file), {});
  }
  std::erase_if(all, [](char c) { return c == '"' || c == '\\' || c < ' '; });
  LH_CHECK(!all.empty(), "no licences on this machine");
  std::string text;
  while (text.size() < bytes) text += all;
  text.resize(bytes);
  return text;
}

int Main() {
  InitLog("bench", LogLevel::kError);
  RouterModel model;
  model.context_tokens_max = kContextTokens;
  const std::string path = absl::GetFlag(FLAGS_model);
  if (path.empty()) {
    model.tokenizer = MadeUpTokenizer();
  } else {
    absl::StatusOr<ModelFile> file = LoadModelFile(path);
    if (!file.ok()) {
      std::fprintf(stderr, "prompt_path_bench: %s\n", file.status().ToString().c_str());
      return 1;
    }
    model.tokenizer = file->tokenizer;
  }
  Trace trace;
  TracedCluster cluster(&trace, model);
  std::mt19937 random(1);
  std::printf("ms            ");
  for (const char* stage : kStages) std::printf(" %8s", stage);
  std::printf(" %8s %8s\n", "whole", "p90");
  for (const std::string& word : absl::GetFlag(FLAGS_tokens)) {
    int64_t tokens = 0;
    LH_CHECK(absl::SimpleAtoi(word, &tokens), "--tokens");
    Measure(cluster, trace, absl::StrCat(word, " ids"), [&] {
      std::vector<uint32_t> ids(tokens);
      for (uint32_t& id : ids) id = random() % model.tokenizer.tokens.size();
      return absl::StrCat("[", absl::StrJoin(ids, ","), "]");
    });
    if (path.empty()) continue;
    Measure(cluster, trace, absl::StrCat(word, " text"), [&] {
      // The number keeps prompts apart from the first block on.
      return absl::StrCat("\"", random(), Prose(tokens * 4), "\"");
    });
  }
  return 0;
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return longhaul::Main();
}
