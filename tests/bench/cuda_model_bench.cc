// A model of Llama-3-8B's shape with random weights on a GPU, the way a worker runs it: through
// ModelExecutor over the CUDA backend. Times to first token of single prompts, times per token over
// contexts of random KV. Each figure stands beside its bar.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/synchronization/notification.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/engine/model_executor.h"
#include "common/model/half.h"
#include "common/runtime/run_and_wait.h"
#include "kernels/cuda/cuda_backend.h"

ABSL_FLAG(int, device, 0, "CUDA device");
ABSL_FLAG(int, layers, 32, "layers of the model; less for a quick look");
ABSL_FLAG(int64_t, chunk_tokens, 8192, "prompt tokens in a step");
ABSL_FLAG(int64_t, kv_tokens, 270000, "tokens that the KV pool holds");
ABSL_FLAG(int64_t, prompt_tokens_max, 131072, "no longer prompt is run");
ABSL_FLAG(int, steps, 20, "decode steps timed for each context; the median is printed");
ABSL_FLAG(int, load_threads, 8, "threads that load the weights");

namespace longhaul {
namespace {

double Milliseconds() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

constexpr int kBlockTokens = 64;

ModelConfig Llama8B() {
  ModelConfig config;
  config.name = "llama-3-8b";
  config.layers = absl::GetFlag(FLAGS_layers);
  config.hidden = 4096;
  config.heads = 32;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.ffn_hidden = 14336;
  config.vocab = 128256;
  config.context_tokens_max = 131072 + 1024;
  config.rope_theta = 500000.0;
  return config;
}

// All matrices are views of the same random bytes: each Prepare makes its own copy on the device.
class RandomWeights {
 public:
  explicit RandomWeights(const ModelConfig& c) : norm_(c.hidden, 1.0f) {
    const int64_t largest = c.vocab * c.hidden;
    matrix_.resize(largest);
    std::mt19937 random(7);
    std::uniform_real_distribution<float> uniform(-0.02f, 0.02f);
    // Repeated in runs whose length is no multiple of a row's, so that no two rows are alike.
    constexpr int64_t kRun = (int64_t{1} << 23) + 8 * 37;
    for (int64_t i = 0; i < std::min(kRun, largest); ++i) matrix_[i] = BF16FromF32(uniform(random));
    for (int64_t at = kRun; at < largest; at += kRun) {
      std::memcpy(&matrix_[at], &matrix_[0], std::min(kRun, largest - at) * sizeof(uint16_t));
    }
    weights_.embedding = weights_.head = Matrix(c.vocab, c.hidden);
    weights_.final_norm = Norm();
    LayerWeights layer;
    layer.attention_norm = layer.ffn_norm = Norm();
    layer.q = layer.attention_out = Matrix(c.hidden, c.hidden);
    layer.k = layer.v = Matrix(int64_t{c.kv_heads} * c.head_dim, c.hidden);
    layer.gate = layer.up = Matrix(c.ffn_hidden, c.hidden);
    layer.down = Matrix(c.hidden, c.ffn_hidden);
    weights_.layers.assign(c.layers, layer);
  }
  const ModelWeights& weights() const { return weights_; }
  const std::vector<uint16_t>& bits() const { return matrix_; }

 private:
  WeightView Matrix(int64_t rows, int64_t cols) const {
    return {reinterpret_cast<const std::byte*>(matrix_.data()), DType::kBF16, rows, cols};
  }
  WeightView Norm() const {
    return {reinterpret_cast<const std::byte*>(norm_.data()), DType::kF32, 1,
            static_cast<int64_t>(norm_.size())};
  }

  std::vector<float> norm_;
  std::vector<uint16_t> matrix_;
  ModelWeights weights_;
};

// Steps through the executor, one at a time.
class Engine {
 public:
  Engine(Backend& backend, Decoder& decoder, KvPool pool) : owner_({.name = "owner"}), pool_(pool) {
    RunAndWait(owner_, [&] {
      executor_ = std::make_unique<ModelExecutor>(owner_, backend, decoder, pool,
                                                  ThreadLoopOptions{.name = "device"});
    });
    blocks_.resize(pool.blocks);
    std::iota(blocks_.begin(), blocks_.end(), 0);
    std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(3));
    auto greedy = std::make_shared<SamplingParams>();
    greedy->temperature = 0.0f;
    greedy_ = std::move(greedy);
  }
  ~Engine() {
    RunAndWait(owner_, [&] { executor_.reset(); });
  }

  // A prompt's KV, then its first token: milliseconds.
  double FirstToken(int64_t tokens) {
    const double start = Milliseconds();
    for (int64_t done = 0; done < tokens - 1;) {
      const int64_t count = std::min(absl::GetFlag(FLAGS_chunk_tokens), tokens - 1 - done);
      Run({Sequence(0, tokens, done, count, /*sample=*/false)});
      done += count;
    }
    Run({Sequence(0, tokens, tokens - 1, 1, /*sample=*/true)});
    return Milliseconds() - start;
  }

  // A token of each of `sequences` over contexts of `context` tokens: milliseconds.
  double Token(int sequences, int64_t context) {
    const int64_t each = pool_.layout.BlocksFor(context);
    LH_CHECK(sequences * each <= pool_.blocks, "raise --kv_tokens");
    std::vector<StepSequence> plan;
    for (int i = 0; i < sequences; ++i) {
      plan.push_back(Sequence(i * each, context, context - 1, 1, /*sample=*/true));
    }
    const double start = Milliseconds();
    Run(std::move(plan));
    return Milliseconds() - start;
  }

 private:
  StepSequence Sequence(int64_t first_block, int64_t context, int64_t position, int64_t count,
                        bool sample) {
    StepSequence sequence;
    sequence.id = first_block + 1;
    sequence.position = position;
    sequence.sample = sample;
    sequence.sampling = greedy_;
    sequence.blocks.assign(blocks_.begin() + first_block,
                           blocks_.begin() + first_block + pool_.layout.BlocksFor(context));
    for (int64_t i = 0; i < count; ++i) {
      sequence.tokens.push_back(static_cast<int32_t>((position + i) * 7919 % 128000));
    }
    return sequence;
  }
  void Run(std::vector<StepSequence> sequences) {
    StepPlan plan;
    plan.sequences = std::move(sequences);
    absl::Notification done;
    owner_.Post([&] {
      executor_->Execute(std::move(plan), nullptr, [&](StepResult result) {
        for (const auto& sequence : result.sequences) {
          LH_CHECK(sequence.status.ok(), sequence.status.ToString());
        }
        done.Notify();
      });
    });
    done.WaitForNotification();
  }

  ThreadLoop owner_;
  const KvPool pool_;
  std::unique_ptr<ModelExecutor> executor_;
  std::vector<BlockId> blocks_;
  std::shared_ptr<const SamplingParams> greedy_;
};

absl::Status Main() {
  const ModelConfig config = Llama8B();
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                      MakeCudaBackend({.device = absl::GetFlag(FLAGS_device),
                                       .load_threads = absl::GetFlag(FLAGS_load_threads)}));
  std::printf("%s\n", backend->name().c_str());
  const RandomWeights random(config);
  const int64_t before_bytes = backend->capacity_bytes();
  const double start = Milliseconds();
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<Decoder> decoder,
                      Decoder::Create(*backend, config, random.weights()));
  backend->Wait(backend->Record());
  const double load_ms = Milliseconds() - start;
  const double gigabytes = static_cast<double>(before_bytes - backend->capacity_bytes()) / 1e9;
  std::printf("weights: %.1f GB in %.2f s, %.1f GB/s\n", gigabytes, load_ms / 1e3,
              gigabytes / load_ms * 1e3);
  KvPool pool;
  pool.layout = {config.layers, config.kv_heads, config.head_dim, kBlockTokens};
  pool.blocks = pool.layout.BlocksFor(absl::GetFlag(FLAGS_kv_tokens));
  const int64_t pool_bytes = pool.blocks * pool.layout.block_bytes();
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBuffer> memory, backend->Allocate(pool_bytes));
  pool.data = memory->data();
  const auto run = static_cast<int64_t>(random.bits().size() * sizeof(uint16_t));
  for (int64_t at = 0; at < pool_bytes; at += run) {
    backend->Copy(pool.data + at, random.bits().data(), std::min(run, pool_bytes - at));
  }
  Engine engine(*backend, *decoder, pool);

  std::printf("\n%-28s %10s %10s\n", "time per token, ms", "measured", "bar");
  struct Decode {
    int sequences;
    int64_t context;
    double bar_ms;
  };
  const auto single = [](int64_t context) {
    return Decode{1, context, 4.2 + 3.2e-5 * static_cast<double>(context)};
  };
  for (const Decode& decode :
       {single(1024), single(8192), single(32768), single(131072), Decode{32, 8192, 12.5},
        Decode{64, 2048, 8.7}, Decode{128, 1024, 9.0}}) {
    if (decode.sequences * decode.context > absl::GetFlag(FLAGS_kv_tokens)) continue;
    std::vector<double> times;
    // The first steps of a shape are recorded.
    for (int i = 0; i < 3; ++i) engine.Token(decode.sequences, decode.context);
    for (int i = 0; i < absl::GetFlag(FLAGS_steps); ++i) {
      times.push_back(engine.Token(decode.sequences, decode.context));
    }
    std::printf("%3d x %-22lld %10.3f %10.3f\n", decode.sequences,
                static_cast<long long>(decode.context), Median(times), decode.bar_ms);
    std::fflush(stdout);
  }

  std::printf("\n%-28s %10s %10s\n", "time to first token, ms", "measured", "bar");
  struct Prompt {
    int64_t tokens;
    int runs;
    double bar_ms;
  };
  for (const Prompt& prompt : {Prompt{512, 5, 14.5}, Prompt{2048, 5, 48}, Prompt{8192, 3, 205},
                               Prompt{32768, 1, 1150}, Prompt{131072, 1, 10000}}) {
    if (prompt.tokens > absl::GetFlag(FLAGS_prompt_tokens_max)) continue;
    std::vector<double> times;
    if (prompt.runs > 1) engine.FirstToken(prompt.tokens);
    for (int i = 0; i < prompt.runs; ++i) times.push_back(engine.FirstToken(prompt.tokens));
    std::printf("%-28lld %10.2f %10.2f\n", static_cast<long long>(prompt.tokens), Median(times),
                prompt.bar_ms);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = longhaul::Main();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
