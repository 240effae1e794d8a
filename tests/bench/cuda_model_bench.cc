// A model of Llama-3-8B's shape with random weights on a GPU, or cut into ranks on several, the way
// a worker runs it: through ModelExecutor over the CUDA backend. Times to first token of single
// prompts, times per token over contexts of random KV. Each figure stands beside one GPU's bar;
// tools/bench/tensor_parallel.py sets widths side by side.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/engine/model_executor.h"
#include "common/model/half.h"
#include "common/model/tensor_shard.h"
#include "common/process/flags.h"
#include "common/runtime/run_and_wait.h"
#include "common/runtime/thread_pool.h"
#include "kernels/cuda/cuda_backend.h"

ABSL_FLAG(std::vector<std::string>, device, {"0"}, "CUDA's numbers of the GPUs: a rank on each");
ABSL_FLAG(int, layers, 32, "layers of the model; less for a quick look");
ABSL_FLAG(int64_t, chunk_tokens, 8192, "prompt tokens in a step");
ABSL_FLAG(int64_t, kv_tokens, 270000, "tokens that the KV pool holds");
ABSL_FLAG(std::vector<std::string>, prompts, {}, "lengths of prompts to run; empty: all");
ABSL_FLAG(bool, tokens, true, "time decode steps");
ABSL_FLAG(int, steps, 20, "decode steps timed for each context; the median is printed");
ABSL_FLAG(bool, operations, true, "one GPU: time each operation of a layer first");
ABSL_FLAG(int, load_threads, 0, "threads that load the weights; 0: by the machine");

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
  explicit Engine(std::vector<ModelRank> ranks)
      : owner_({.name = "owner", .spin_us = kDeviceLoopSpinUs}), pool_(ranks[0].pool) {
    RunAndWait(owner_, [&] {
      executor_ = std::make_unique<ModelExecutor>(owner_, std::move(ranks), kDeviceLoopSpinUs);
    });
    blocks_.resize(pool_.blocks);
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
    double ms = 0;
    for (int64_t done = 0; done < tokens - 1;) {
      const int64_t count = std::min(absl::GetFlag(FLAGS_chunk_tokens), tokens - 1 - done);
      ms += Run({Sequence(0, tokens, done, count, /*sample=*/false)});
      done += count;
    }
    return ms + Run({Sequence(0, tokens, tokens - 1, 1, /*sample=*/true)});
  }

  // A token of each of `sequences` over contexts of `context` tokens: milliseconds.
  double Token(int sequences, int64_t context) {
    const int64_t each = pool_.layout.BlocksFor(context);
    LH_CHECK(sequences * each <= pool_.blocks, "raise --kv_tokens");
    std::vector<StepSequence> plan;
    for (int i = 0; i < sequences; ++i) {
      plan.push_back(Sequence(i * each, context, context - 1, 1, /*sample=*/true));
    }
    return Run(std::move(plan));
  }
  // Of the last step, the device thread's part.
  double device_ms() const { return device_ms_; }

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
  // One step, from the owner's call to its callback: milliseconds.
  double Run(std::vector<StepSequence> sequences) {
    StepPlan plan;
    plan.sequences = std::move(sequences);
    absl::Notification done;
    double start = 0;
    double end = 0;
    owner_.Post([&] {
      start = Milliseconds();
      executor_->Execute(std::move(plan), nullptr, [&](StepResult result) {
        end = Milliseconds();
        device_ms_ = static_cast<double>(result.compute_us) / 1e3;
        for (const auto& sequence : result.sequences) {
          LH_CHECK(sequence.status.ok(), sequence.status.ToString());
        }
        done.Notify();
      });
    });
    done.WaitForNotification();
    return end - start;
  }

  ThreadLoop owner_;
  const KvPool pool_;  // rank 0's: the blocks are the same on all
  std::unique_ptr<ModelExecutor> executor_;
  std::vector<BlockId> blocks_;
  std::shared_ptr<const SamplingParams> greedy_;
  double device_ms_ = 0;
};

// What a layer's operations take by themselves, and sampling: where a step's time goes.
class Operations {
 public:
  Operations(Backend& backend, const ModelConfig& config, const ModelWeights& weights, KvPool pool)
      : backend_(backend), config_(config), pool_(pool) {
    const LayerWeights& w = weights.layers[0];
    norm_ = backend.Prepare(WeightUse::kVector, {w.ffn_norm}, {}).value();
    qkv_ = backend.Prepare(WeightUse::kMatrix, {w.q, w.k, w.v}, {}).value();
    out_ = backend.Prepare(WeightUse::kMatrix, {w.attention_out}, {}).value();
    gate_up_ = backend.Prepare(WeightUse::kGated, {w.gate, w.up}, {}).value();
    down_ = backend.Prepare(WeightUse::kMatrix, {w.down}, {}).value();
    head_ = backend.Prepare(WeightUse::kTable, {weights.head}, {}).value();
  }

  void Prefill(int64_t rows) {
    std::printf("\noperations of a layer at %lld prefill rows, us (TFLOP/s)\n",
                static_cast<long long>(rows));
    Batch batch;
    std::vector<BlockId> blocks(pool_.layout.BlocksFor(rows));
    std::iota(blocks.begin(), blocks.end(), 0);
    batch.sequences.push_back({Phase::kPrefill, 0, rows, 0, blocks});
    batch.tokens.assign(rows, 1);
    batch.prefill_rows = rows;
    Time(batch, Phase::kPrefill);
  }
  void Decode(int64_t rows, int64_t context) {
    std::printf(
        "\noperations of a layer at %lld decode rows of %lld tokens, us (TB/s of weights)\n",
        static_cast<long long>(rows), static_cast<long long>(context));
    Batch batch;
    const int64_t each = pool_.layout.BlocksFor(context);
    std::vector<BlockId> blocks(rows * each);
    std::iota(blocks.begin(), blocks.end(), 0);
    for (int64_t row = 0; row < rows; ++row) {
      batch.sequences.push_back({Phase::kDecode, row, 1, context - 1,
                                 absl::MakeConstSpan(blocks.data() + row * each, each)});
    }
    batch.tokens.assign(rows, 1);
    Time(batch, Phase::kDecode);
  }

 private:
  static constexpr int kRepeats = 20;

  void Time(const Batch& batch, Phase phase) {
    const ModelConfig& c = config_;
    const int64_t rows = batch.rows();
    const int64_t q_width = int64_t{c.heads} * c.head_dim;
    const int64_t qkv_width = q_width + int64_t{2} * c.kv_heads * c.head_dim;
    std::vector<std::unique_ptr<DeviceBuffer>> memory;
    const auto tensor = [&](int64_t width, int64_t bytes) {
      memory.push_back(backend_.Allocate(rows * width * bytes).value());
      return Tensor{reinterpret_cast<float*>(memory.back()->data()), rows, width};
    };
    const Tensor residual = tensor(c.hidden, 4), normed = tensor(c.hidden, 2);
    const Tensor qkv = tensor(qkv_width, 2), attended = tensor(q_width, 2);
    const Tensor gated = tensor(c.ffn_hidden, 2);
    LH_CHECK(backend_.BeginStep(batch, c, pool_).ok(), "BeginStep");
    backend_.Embed(residual, *head_, batch.tokens);
    double sum = 0;
    const auto measure = [&](const char* name, int64_t n, int64_t k, auto body) {
      const auto repeat = [&] {
        for (int i = 0; i < kRepeats; ++i) body();
      };
      std::vector<double> times;
      for (int i = 0; i < 5; ++i) {
        backend_.Wait(backend_.Record());
        const double start = Milliseconds();
        if (phase == Phase::kDecode) {
          backend_.Run(next_key_, repeat);
        } else {
          repeat();
        }
        backend_.Wait(backend_.Record());
        times.push_back((Milliseconds() - start) * 1e3 / kRepeats);
      }
      ++next_key_;
      const double us = Median({times.begin() + 2, times.end()});
      sum += us;
      const double work = phase == Phase::kPrefill ? 2.0 * rows * n * k / 1e6 : 2.0 * n * k / 1e6;
      std::printf("  %-16s %9.1f  %7.2f\n", name, us, work / us);
    };
    measure("rms norm x 2", 0, 0, [&] {
      backend_.RmsNorm(normed, residual, *norm_, c.rms_epsilon, phase);
      backend_.RmsNorm(normed, residual, *norm_, c.rms_epsilon, phase);
    });
    measure("qkv", qkv_width, c.hidden, [&] { backend_.MatMul(qkv, normed, *qkv_, false, phase); });
    measure("rope and store", 0, 0, [&] { backend_.RopeAndStoreKv(qkv, batch, c, pool_, 0); });
    if (phase == Phase::kDecode) {
      measure("attention", 0, 0,
              [&] { backend_.Attention(attended, qkv, batch, c, pool_, 0, phase); });
    } else {
      // Its counters are good for one launch a layer and step.
      backend_.Wait(backend_.Record());
      const double start = Milliseconds();
      for (int layer = 0; layer < c.layers; ++layer) {
        backend_.Attention(attended, qkv, batch, c, pool_, layer, phase);
      }
      backend_.Wait(backend_.Record());
      const double us = (Milliseconds() - start) * 1e3 / c.layers;
      sum += us;
      std::printf("  %-16s %9.1f  %7.2f\n", "attention", us,
                  2.0 * rows * rows * q_width / us / 1e6);
    }
    measure("attention out", c.hidden, q_width,
            [&] { backend_.MatMul(residual, attended, *out_, true, phase); });
    measure("gate and up", int64_t{2} * c.ffn_hidden, c.hidden,
            [&] { backend_.GatedMatMul(gated, normed, *gate_up_, phase); });
    measure("down", c.hidden, c.ffn_hidden,
            [&] { backend_.MatMul(residual, gated, *down_, true, phase); });
    std::printf("  %-16s %9.1f, %d layers %.2f ms\n", "sum", sum, c.layers, sum * c.layers / 1e3);
    if (phase == Phase::kPrefill) return;
    const Tensor logits = tensor(c.vocab, 4);
    measure("head", c.vocab, c.hidden,
            [&] { backend_.MatMul(logits, normed, *head_, false, phase); });
    for (const auto& [name, temperature, top_p] :
         {std::tuple{"sample greedy", 0.0f, 1.0f}, std::tuple{"sample", 1.0f, 1.0f},
          std::tuple{"sample top_p", 1.0f, 0.9f}}) {
      SamplingParams params;
      params.temperature = temperature;
      params.top_p = top_p;
      std::vector<SampleRow> samples(rows);
      for (int64_t i = 0; i < rows; ++i) {
        samples[i].row = i;
        samples[i].params = &params;
      }
      std::vector<double> times;
      for (int i = 0; i < 5; ++i) {
        const double start = Milliseconds();
        LH_CHECK(backend_.Sample(logits, samples)[0].ok(), "Sample");
        times.push_back((Milliseconds() - start) * 1e3);
      }
      std::printf("  %-16s %9.1f with the way there and back\n", name, Median(times));
    }
  }

  Backend& backend_;
  const ModelConfig& config_;
  const KvPool pool_;
  std::unique_ptr<PreparedWeight> norm_, qkv_, out_, gate_up_, down_, head_;
  uint64_t next_key_ = 1 << 20;
};

// Where one rank computes, and its share of the model and of the KV pool.
struct Rank {
  BackendRank device;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<DeviceBuffer> pool_memory;
  KvPool pool;
};

absl::StatusOr<std::vector<BackendRank>> OpenDevices() {
  CudaBackendOptions options{.load_threads = absl::GetFlag(FLAGS_load_threads)};
  LH_ASSIGN_OR_RETURN(const std::vector<int> devices,
                      ParseNumbers("--device", absl::GetFlag(FLAGS_device)));
  if (devices.size() > 1) return MakeCudaRanks(options, devices);
  options.device = devices.at(0);
  std::vector<BackendRank> one(1);
  LH_ASSIGN_OR_RETURN(one[0].backend, MakeCudaBackend(options));
  return one;
}

absl::Status Load(Rank& rank, TensorShard shard, const ModelConfig& whole,
                  const RandomWeights& random) {
  Backend& backend = *rank.device.backend;
  LH_ASSIGN_OR_RETURN(const ModelConfig config, ShardConfig(whole, shard));
  LH_ASSIGN_OR_RETURN(const ModelWeights weights, ShardWeights(whole, random.weights(), shard));
  LH_ASSIGN_OR_RETURN(rank.decoder, Decoder::Create(backend, config, weights,
                                                    {.collective = rank.device.collective.get()}));
  rank.pool.layout = {config.layers, config.kv_heads, config.head_dim, backend.block_tokens()};
  rank.pool.blocks = rank.pool.layout.BlocksFor(absl::GetFlag(FLAGS_kv_tokens));
  backend.Wait(backend.Record());
  return absl::OkStatus();
}

// Random bits again.
absl::Status FillPool(Rank& rank, const RandomWeights& random) {
  Backend& backend = *rank.device.backend;
  const int64_t bytes = rank.pool.blocks * rank.pool.layout.block_bytes();
  LH_ASSIGN_OR_RETURN(rank.pool_memory, backend.Allocate(bytes));
  rank.pool.data = rank.pool_memory->data();
  const auto run = static_cast<int64_t>(random.bits().size() * sizeof(uint16_t));
  backend.Copy(rank.pool.data, random.bits().data(), std::min(run, bytes));
  for (int64_t at = run; at < bytes; at += run) {
    backend.Copy(rank.pool.data + at, rank.pool.data, std::min(run, bytes - at));
  }
  return absl::OkStatus();
}

// `load` of each rank, all at once.
absl::Status OnAll(std::vector<Rank>& ranks, absl::FunctionRef<absl::Status(Rank&, int)> load) {
  std::vector<absl::Status> statuses(ranks.size());
  ThreadPool(static_cast<int>(ranks.size())).RunOnAll([&](int index) {
    statuses[index] = load(ranks[index], index);
  });
  absl::Status first;
  for (const absl::Status& status : statuses) first.Update(status);
  return first;
}

absl::Status Main() {
  const ModelConfig config = Llama8B();
  LH_ASSIGN_OR_RETURN(std::vector<BackendRank> devices, OpenDevices());
  const int width = static_cast<int>(devices.size());
  std::vector<Rank> ranks(width);
  int64_t before_bytes = 0;
  for (int index = 0; index < width; ++index) {
    ranks[index].device = std::move(devices[index]);
    const Backend& backend = *ranks[index].device.backend;
    std::printf("%s\n", backend.name().c_str());
    before_bytes += backend.capacity_bytes();
  }
  const RandomWeights random(config);
  const double start = Milliseconds();
  LH_RETURN_IF_ERROR(OnAll(ranks, [&](Rank& rank, int index) {
    return Load(rank, {index, width}, config, random);
  }));
  const double load_ms = Milliseconds() - start;
  int64_t after_bytes = 0;
  for (const Rank& rank : ranks) after_bytes += rank.device.backend->capacity_bytes();
  const double gigabytes = static_cast<double>(before_bytes - after_bytes) / 1e9;
  std::printf("weights: %.1f GB in %.2f s, %.1f GB/s\n", gigabytes, load_ms / 1e3,
              gigabytes / load_ms * 1e3);
  LH_RETURN_IF_ERROR(OnAll(ranks, [&](Rank& rank, int) { return FillPool(rank, random); }));
  if (absl::GetFlag(FLAGS_operations) && width == 1) {
    Operations operations(*ranks[0].device.backend, config, random.weights(), ranks[0].pool);
    for (const int64_t rows : {512, 2048, 8192}) operations.Prefill(rows);
    operations.Decode(1, 1024);
    operations.Decode(64, 2048);
  }
  std::vector<ModelRank> model;
  for (const Rank& rank : ranks) {
    model.push_back({rank.device.backend.get(), rank.decoder.get(), rank.pool});
  }
  Engine engine(std::move(model));

  std::printf("\n%-28s %10s %10s %10s\n", "time per token, ms", "measured", "bar", "device");
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
    if (!absl::GetFlag(FLAGS_tokens)) break;
    if (decode.sequences * decode.context > absl::GetFlag(FLAGS_kv_tokens)) continue;
    std::vector<double> times;
    std::vector<double> device_times;
    // The first steps of a shape are recorded.
    for (int i = 0; i < 3; ++i) engine.Token(decode.sequences, decode.context);
    for (int i = 0; i < absl::GetFlag(FLAGS_steps); ++i) {
      times.push_back(engine.Token(decode.sequences, decode.context));
      device_times.push_back(engine.device_ms());
    }
    std::printf("%3d x %-22lld %10.3f %10.3f %10.3f\n", decode.sequences,
                static_cast<long long>(decode.context), Median(times), decode.bar_ms,
                Median(device_times));
    std::fflush(stdout);
  }

  std::printf("\n%-28s %10s %10s\n", "time to first token, ms", "measured", "bar");
  const std::vector<std::string> chosen = absl::GetFlag(FLAGS_prompts);
  const std::set<std::string> prompts(chosen.begin(), chosen.end());
  struct Prompt {
    int64_t tokens;
    int runs;
    double bar_ms;
  };
  for (const Prompt& prompt : {Prompt{512, 5, 14.5}, Prompt{2048, 5, 48}, Prompt{8192, 3, 205},
                               Prompt{32768, 1, 1150}, Prompt{131072, 1, 10000}}) {
    if (!prompts.empty() && !prompts.contains(absl::StrCat(prompt.tokens))) continue;
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
