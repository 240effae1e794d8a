#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/sample_kernel.h"

namespace longhaul {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / ptx::kWarp;
constexpr int kBins = 2 * kThreads;
constexpr int kAhead = 8;  // loads that a thread has under way
constexpr uint32_t kAll = 0xffffffffu;
constexpr float kMassUnit = 17592186044416.0f;  // 2^44
// Bins of the first histogram, by distance from the best logit in units of the temperature: 32
// units, beyond which a weight is less than 2^-44.
constexpr float kBinsPerUnit = kBins / 32.0f;

using Mass = unsigned long long;  // of weights, in units of 2^-44; what atomicAdd takes

// Orders as the floats do; -0 counts as 0.
__device__ __forceinline__ uint32_t KeyOf(float logit) {
  const uint32_t bits = __float_as_uint(__fadd_rn(logit, 0.0f));
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float LogitOf(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// The distribution that logits make at a temperature, relative to the best of them.
struct Weights {
  float best = 0.0f;
  float temperature = 1.0f;

  // In units of the temperature, <= 0.
  __device__ float Distance(float logit) const {
    return __fdiv_rn(__fsub_rn(logit, best), temperature);
  }
  // ExpNonPositive of sampler.cc, operation for operation, none of them fused.
  __device__ float Of(float logit) const {
    const float x = Distance(logit);
    if (!(x >= -87.0f)) return 0.0f;
    const float magic = 12582912.0f;
    const float n = __fsub_rn(__fadd_rn(__fmul_rn(x, 1.44269504f), magic), magic);
    const float r =
        __fsub_rn(__fsub_rn(x, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, -2.12194440e-4f));
    float p = 1.0f / 720.0f;
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 120.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 24.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 6.0f);
    p = __fadd_rn(__fmul_rn(p, r), 0.5f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    return __fmul_rn(p, __uint_as_float((static_cast<int32_t>(n) + 127) << 23));
  }
  static __device__ Mass MassOf(float weight) { return __float2ull_rn(weight * kMassUnit); }
};

struct Shared {
  Mass mass[kBins];
  uint32_t count[kBins];
  Mass partial[kWarps];
  uint32_t partial_count[kWarps];
  // What one thread found for all.
  int found_bin;
  int found_token;
  Mass found_mass;
  uint32_t found_count;
};

__device__ __forceinline__ Mass Larger(Mass a, Mass b) { return a > b ? a : b; }
__device__ __forceinline__ Mass Sum(Mass a, Mass b) { return a + b; }

template <typename Combine>
__device__ Mass OverWarp(Mass value, Combine combine) {
#pragma unroll
  for (int step = ptx::kWarp / 2; step > 0; step /= 2) {
    value = combine(value, __shfl_xor_sync(kAll, value, step));
  }
  return value;
}

// Over the whole block; every thread gets the result.
template <typename Combine>
__device__ Mass OverBlock(Mass value, Shared& shared, Combine combine) {
  value = OverWarp(value, combine);
  if (threadIdx.x % ptx::kWarp == 0) shared.partial[threadIdx.x / ptx::kWarp] = value;
  __syncthreads();
  value = OverWarp(shared.partial[threadIdx.x % ptx::kWarp], combine);
  __syncthreads();
  return value;
}

// Sums up to each lane's own.
template <typename T>
__device__ T ScanWarp(T value) {
#pragma unroll
  for (int step = 1; step < ptx::kWarp; step *= 2) {
    const T before = __shfl_up_sync(kAll, value, step);
    if (threadIdx.x % ptx::kWarp >= step) value += before;
  }
  return value;
}

// body(token, logit) for the tokens [begin, end) that are this thread's among `threads`.
template <typename Body>
__device__ __forceinline__ void ForEach(const float* logits, int begin, int end, int thread,
                                        int threads, Body body) {
  int i = begin + thread;
  for (; i + (kAhead - 1) * threads < end; i += kAhead * threads) {
    float loaded[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) loaded[j] = logits[i + j * threads];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) body(i + j * threads, loaded[j]);
  }
  for (; i < end; i += threads) body(i, logits[i]);
}

// One row's sampling, by a whole block: every thread calls every method.
class Row {
 public:
  __device__ Row(float* logits, int vocab, Shared& shared)
      : logits_(logits), vocab_(vocab), shared_(shared) {}

  // The largest logit before `limit`, and the lowest token that has it: key in the high half, the
  // complement of the token in the low one. Zero when there is none.
  __device__ Mass Best(Mass limit) {
    Mass best = 0;
    ForAll([&](int token, float logit) {
      const Mass here = Mass{KeyOf(logit)} << 32 | static_cast<uint32_t>(~token);
      if (here < limit) best = Larger(best, here);
    });
    return OverBlock(best, shared_, Larger);
  }
  static __device__ int TokenOf(Mass best) {
    return static_cast<int>(~static_cast<uint32_t>(best));
  }
  static __device__ float BestLogit(Mass best) {
    return LogitOf(static_cast<uint32_t>(best >> 32));
  }

  __device__ bool AllBelowInfinity() {
    bool bad = false;
    ForAll([&](int token, float logit) { bad |= !(logit < __int_as_float(0x7f800000)); });
    return __syncthreads_or(bad) == 0;
  }

  __device__ Mass Total(Weights weights, float weight_min) {
    Mass total = 0;
    ForAll([&](int token, float logit) {
      const float weight = weights.Of(logit);
      if (weight >= weight_min) total += Weights::MassOf(weight);
    });
    return OverBlock(total, shared_, Sum);
  }

  // The token, in order of id, at which the running sum of value(logit) reaches `target`, which is
  // at least 1 and at most the sum of all.
  template <typename Value>
  __device__ int FindInOrder(Mass target, Value value) {
    int begin = 0;
    int end = vocab_;
    const int warp = threadIdx.x / ptx::kWarp;
    const int lane = threadIdx.x % ptx::kWarp;
    while (end - begin > ptx::kWarp) {
      const int part = (end - begin + kWarps - 1) / kWarps;
      const int from = min(end, begin + warp * part);
      Mass sum = 0;
      ForEach(logits_, from, min(end, from + part), lane, ptx::kWarp,
              [&](int token, float logit) { sum += value(logit); });
      sum = OverWarp(sum, Sum);
      if (lane == 0) shared_.partial[warp] = sum;
      __syncthreads();
      const Mass upto = ScanWarp(shared_.partial[lane]);
      const int first = FirstOf(upto >= target);
      const Mass before = __shfl_sync(kAll, upto, (first + ptx::kWarp - 1) % ptx::kWarp);
      if (first > 0) target -= before;
      begin += first * part;
      end = min(end, begin + part);
      __syncthreads();
    }
    const int token = begin + lane;
    const Mass upto = ScanWarp(token < end ? Mass{value(logits_[token])} : Mass{0});
    return begin + FirstOf(upto >= target);
  }

  // Counts and sums by distance from the best: where every Cross begins.
  __device__ void MakeFirstHistogram(Weights weights) {
    weights_ = weights;
    ClearBins();
    ForAll([&](int token, float logit) { Add(FirstBin(logit), logit); });
    __syncthreads();
    for (int i = 0; i < 2; ++i) {
      first_mass_[i] = shared_.mass[2 * threadIdx.x + i];
      first_count_[i] = shared_.count[2 * threadIdx.x + i];
    }
  }

  struct Crossing {
    uint32_t key = 0;          // the logit there
    uint32_t count_above = 0;  // tokens with larger ones
    Mass mass_above = 0;
    Mass mass_each = 0;  // of a token with this one
  };
  // Where the running total from the largest logit down, of tokens or of their mass, reaches
  // `target`, which is at least 1 and at most the total.
  template <bool kByCount>
  __device__ Crossing Cross(Mass target) {
    Crossing crossing;
    for (int i = 0; i < 2; ++i) {
      shared_.mass[2 * threadIdx.x + i] = first_mass_[i];
      shared_.count[2 * threadIdx.x + i] = first_count_[i];
    }
    __syncthreads();
    const int first_bin = FindBin<kByCount>(target, crossing);
    uint32_t lowest = kAll;
    uint32_t highest = 0;
    ForAll([&](int token, float logit) {
      if (FirstBin(logit) != first_bin) return;
      lowest = min(lowest, KeyOf(logit));
      highest = max(highest, KeyOf(logit));
    });
    highest = static_cast<uint32_t>(OverBlock(highest, shared_, Larger));
    lowest = ~static_cast<uint32_t>(OverBlock(static_cast<uint32_t>(~lowest), shared_, Larger));
    while (true) {
      int shift = 0;
      while ((highest - lowest) >> shift >= kBins) ++shift;
      ClearBins();
      ForAll([&](int token, float logit) {
        const uint32_t key = KeyOf(logit);
        if (key >= lowest && key <= highest) Add((highest - key) >> shift, logit);
      });
      __syncthreads();
      const int bin = FindBin<kByCount>(target, crossing);
      highest -= static_cast<uint32_t>(bin) << shift;
      if (shift == 0) break;
      lowest = max(lowest, highest - ((1u << shift) - 1));
    }
    crossing.key = highest;
    crossing.mass_each = Weights::MassOf(weights_.Of(LogitOf(highest)));
    return crossing;
  }

  __device__ int vocab() const { return vocab_; }

 private:
  template <typename Body>
  __device__ __forceinline__ void ForAll(Body body) {
    ForEach(logits_, 0, vocab_, threadIdx.x, kThreads, body);
  }
  // The first lane that says yes; the last when none does.
  static __device__ int FirstOf(bool yes) {
    const uint32_t lanes = __ballot_sync(kAll, yes);
    return lanes == 0 ? ptx::kWarp - 1 : __ffs(lanes) - 1;
  }
  __device__ int FirstBin(float logit) const {
    const float scaled = -weights_.Distance(logit) * kBinsPerUnit;
    return scaled < kBins - 1 ? static_cast<int>(scaled) : kBins - 1;
  }
  __device__ void ClearBins() {
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += kThreads) {
      shared_.mass[i] = 0;
      shared_.count[i] = 0;
    }
    __syncthreads();
  }
  __device__ void Add(int bin, float logit) {
    atomicAdd(&shared_.count[bin], 1u);
    const Mass mass = Weights::MassOf(weights_.Of(logit));
    if (mass != 0) atomicAdd(&shared_.mass[bin], mass);
  }
  // The bin in which the running total reaches what `target` asks beyond what lies above already;
  // adds the bins before it to what lies above.
  template <bool kByCount>
  __device__ int FindBin(Mass target, Crossing& crossing) {
    const int at = 2 * threadIdx.x;
    const int warp = threadIdx.x / ptx::kWarp;
    const int lane = threadIdx.x % ptx::kWarp;
    const Mass mass[2] = {shared_.mass[at], shared_.mass[at + 1]};
    const uint32_t count[2] = {shared_.count[at], shared_.count[at + 1]};
    const Mass mass_upto = ScanWarp(mass[0] + mass[1]);
    const uint32_t count_upto = ScanWarp(count[0] + count[1]);
    if (lane == ptx::kWarp - 1) {
      shared_.partial[warp] = mass_upto;
      shared_.partial_count[warp] = count_upto;
    }
    if (threadIdx.x == 0) shared_.found_bin = -1;
    __syncthreads();
    Mass mass_before = crossing.mass_above + mass_upto - mass[0] - mass[1];
    uint32_t count_before = crossing.count_above + count_upto - count[0] - count[1];
    for (int i = 0; i < warp; ++i) {
      mass_before += shared_.partial[i];
      count_before += shared_.partial_count[i];
    }
    for (int i = 0; i < 2; ++i) {
      const Mass before = kByCount ? Mass{count_before} : mass_before;
      const Mass upto = before + (kByCount ? Mass{count[i]} : mass[i]);
      if (before < target && upto >= target) {
        shared_.found_bin = at + i;
        shared_.found_mass = mass_before;
        shared_.found_count = count_before;
      }
      mass_before += mass[i];
      count_before += count[i];
    }
    __syncthreads();
    crossing.mass_above = shared_.found_mass;
    crossing.count_above = shared_.found_count;
    const int bin = shared_.found_bin;
    __syncthreads();
    return bin;
  }

  float* const logits_;
  const int vocab_;
  Shared& shared_;
  Weights weights_;
  Mass first_mass_[2];
  uint32_t first_count_[2];
};

// The first integer sum that is more than `uniform` of the whole, at most all of it.
__device__ Mass DrawTarget(double uniform, Mass total) {
  const Mass target = static_cast<Mass>(uniform * static_cast<double>(total)) + 1;
  return target < total ? target : total;
}

// The draw among all tokens that min_p leaves, in order of id.
__device__ int DrawFromAll(Row& row, const SampleTask& task, Weights weights) {
  const Mass total = row.Total(weights, task.min_p);
  return row.FindInOrder(DrawTarget(task.uniform, total), [&](float logit) {
    const float weight = weights.Of(logit);
    return weight >= task.min_p ? Weights::MassOf(weight) : Mass{0};
  });
}

// The draw among the most likely tokens that top_k, top_p and min_p leave, in order of rank: a
// prefix of the ranking, which cuts make shorter and whose mass alone the draw needs.
__device__ int DrawFromTop(Row& row, const SampleTask& task, Weights weights) {
  row.MakeFirstHistogram(weights);
  Mass total = row.Total(weights, 0.0f);
  float last_weight = 0.0f;  // of the last token left
  if (task.top_k > 0 && task.top_k < row.vocab()) {
    const auto cut = row.Cross<true>(task.top_k);
    total = cut.mass_above + (task.top_k - cut.count_above) * cut.mass_each;
    last_weight = weights.Of(LogitOf(cut.key));
  }
  if (task.top_p < 1.0f) {
    const Mass wanted =
        static_cast<Mass>(ceil(static_cast<double>(task.top_p) * static_cast<double>(total)));
    const Mass target = wanted < 1 ? 1 : wanted < total ? wanted : total;
    const auto cut = row.Cross<false>(target);
    const Mass ties = (target - cut.mass_above + cut.mass_each - 1) / cut.mass_each;
    total = cut.mass_above + ties * cut.mass_each;
    last_weight = weights.Of(LogitOf(cut.key));
  }
  if (last_weight < task.min_p) total = row.Total(weights, task.min_p);
  const Mass target = DrawTarget(task.uniform, total);
  const auto drawn = row.Cross<false>(target);
  const Mass tie = (target - drawn.mass_above + drawn.mass_each - 1) / drawn.mass_each;
  return row.FindInOrder(tie, [&](float logit) { return Mass{KeyOf(logit) == drawn.key}; });
}

__device__ void Edit(float* logits, const SampleTask& task, SampleEdit* edits) {
  for (int i = threadIdx.x; i < task.edits; i += kThreads) {
    SampleEdit& edit = edits[i];
    float logit = logits[edit.token];
    edit.raw = logit;
    if (edit.in_history) {
      logit = logit > 0.0f ? __fdiv_rn(logit, task.repetition_penalty)
                           : __fmul_rn(logit, task.repetition_penalty);
    }
    if (edit.output_uses > 0) {
      logit = __fsub_rn(
          logit, __fadd_rn(task.presence_penalty, __fmul_rn(task.frequency_penalty,
                                                            static_cast<float>(edit.output_uses))));
    }
    logit = __fadd_rn(logit, edit.bias);
    logits[edit.token] = edit.banned ? __int_as_float(0xff800000) : logit;
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    Sample(float* all_logits, int64_t vocab, const SampleTask* tasks, SampleEdit* all_edits,
           SampleOutcome* outcomes) {
  __shared__ Shared shared;
  const SampleTask task = tasks[blockIdx.x];
  SampleOutcome& outcome = outcomes[blockIdx.x];
  SampleEdit* edits = all_edits + task.first_edit;
  float* logits = all_logits + task.row * vocab;
  Row row(logits, static_cast<int>(vocab), shared);
  const auto fail = [&](SampleFault fault) {
    if (threadIdx.x == 0) outcome.fault = fault;
  };
  if (threadIdx.x == 0) outcome = SampleOutcome();
  if (!row.AllBelowInfinity()) return fail(SampleFault::kNotANumber);
  Mass best = row.Best(~Mass{0});
  double log_total = 0.0;
  if (task.top_logprobs >= 0) {
    const Weights raw = {Row::BestLogit(best), 1.0f};
    log_total = log(static_cast<double>(row.Total(raw, 0.0f)) / kMassUnit) + raw.best;
    const int count = min(static_cast<int>(vocab), task.top_logprobs);
    Mass next = best;
    for (int i = 0; i < count; ++i) {
      if (threadIdx.x == 0) {
        outcome.top_tokens[i] = Row::TokenOf(next);
        outcome.top_logprobs[i] = static_cast<float>(Row::BestLogit(next) - log_total);
        outcome.top_count = i + 1;
      }
      next = row.Best(next);
    }
  }
  if (task.edits > 0) {
    Edit(logits, task, edits);
    best = row.Best(~Mass{0});
  }
  const Weights weights = {Row::BestLogit(best), task.temperature};
  if (weights.best == __int_as_float(0xff800000)) return fail(SampleFault::kNothingLeft);
  int token = Row::TokenOf(best);
  if (task.temperature > 0.0f) {
    const bool cut = task.top_p < 1.0f || task.top_k > 0;
    token = cut ? DrawFromTop(row, task, weights) : DrawFromAll(row, task, weights);
  }
  if (threadIdx.x == 0) {
    outcome.token = token;
    outcome.logprob = static_cast<float>(logits[token] - log_total);
  }
  if (task.top_logprobs < 0) return;
  __syncthreads();
  for (int i = threadIdx.x; i < task.edits; i += kThreads) {
    if (edits[i].token == token) outcome.logprob = static_cast<float>(edits[i].raw - log_total);
  }
}

}  // namespace

void LaunchSample(float* logits, int64_t vocab, const SampleTask* tasks, SampleEdit* edits,
                  int count, SampleOutcome* outcomes, cudaStream_t stream) {
  Sample<<<count, kThreads, 0, stream>>>(logits, vocab, tasks, edits, outcomes);
  CudaCheckLaunch("Sample");
}

}  // namespace longhaul
