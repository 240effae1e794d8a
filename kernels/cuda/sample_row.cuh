// A row of logits in the hands of a cluster of thread blocks: its best token, sums of weights, and
// where running sums cross a target. Device code only, for sample_kernel.cu.
#pragma once

#include <cooperative_groups.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace longhaul::sampling {

// A row is a cluster's: each of its blocks has a run of the tokens, and they meet in each other's
// shared memory.
constexpr int kBlocks = 8;
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / ptx::kWarp;
constexpr int kBins = 2048;
constexpr int kOwnBins = kBins / kBlocks;  // those whose totals a block keeps, a thread each
constexpr int kAhead = 8;                  // loads that a thread has under way
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
  // A slot for each lane of the warp that combines them; those beyond kWarps stay zero.
  Mass partial[ptx::kWarp];
  uint32_t partial_count[ptx::kWarp];
  // What the cluster's blocks told each other, by rank; two, used in turns, so that nobody
  // overwrites what is still read.
  Mass told[2][kBlocks];
  uint32_t told_count[2][kBlocks];
  // What one thread of the cluster found for all.
  int found_bin;
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

// One row's sampling, by a whole cluster: every thread of it calls every method.
class Row {
 public:
  __device__ Row(float* logits, int vocab, Shared& shared)
      : logits_(logits),
        vocab_(vocab),
        rank_(static_cast<int>(cluster_.block_rank())),
        begin_(min(vocab, rank_ * Part(vocab))),
        end_(min(vocab, begin_ + Part(vocab))),
        shared_(shared) {
    if (threadIdx.x < ptx::kWarp) {
      shared.partial[threadIdx.x] = 0;
      shared.partial_count[threadIdx.x] = 0;
    }
    Sync();
  }

  // The largest logit, and the lowest token that has it: key in the high half, the complement of
  // the token in the low one. kNotANumber when a logit is not below infinity.
  __device__ Mass Best() {
    Mass best = 0;
    ForAll([&](int token, float logit) {
      best = Larger(best, logit < __int_as_float(0x7f800000) ? Ranked(token, logit) : kNotANumber);
    });
    return OverCluster(best, Larger);
  }
  // The one that follows `previous`.
  __device__ Mass Next(Mass previous) {
    Mass best = 0;
    ForAll([&](int token, float logit) {
      const Mass here = Ranked(token, logit);
      if (here < previous) best = Larger(best, here);
    });
    return OverCluster(best, Larger);
  }
  static constexpr Mass kNotANumber = ~Mass{0};
  static __device__ int TokenOf(Mass ranked) {
    return static_cast<int>(~static_cast<uint32_t>(ranked));
  }
  static __device__ float LogitOfRanked(Mass ranked) {
    return LogitOf(static_cast<uint32_t>(ranked >> 32));
  }

  __device__ Mass Total(Weights weights, float weight_min) {
    Mass total = 0;
    ForAll([&](int token, float logit) {
      const float weight = weights.Of(logit);
      if (weight >= weight_min) total += Weights::MassOf(weight);
    });
    return OverCluster(total, Sum);
  }

  // The token, in order of id, at which the running sum of value(logit) reaches `target`, which is
  // at least 1 and at most the sum of all. Only the block that has the token learns it; the others
  // get -1.
  template <typename Value>
  __device__ int FindInOrder(Mass target, Value value) {
    Mass own = 0;
    ForAll([&](int token, float logit) { own += value(logit); });
    const Told told = Tell(OverBlock(own, Sum), 0);
    Mass before = 0;
    for (int i = 0; i < rank_; ++i) before += told.mass[i];
    if (target <= before || target > before + told.mass[rank_]) return -1;
    target -= before;
    int begin = begin_;
    int end = end_;
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
      const Mass passed = __shfl_sync(kAll, upto, (first + ptx::kWarp - 1) % ptx::kWarp);
      if (first > 0) target -= passed;
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
    first_ = OwnBin();
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
    const int first_bin = FindBin<kByCount>(target, first_, crossing);
    uint32_t lowest = kAll;
    uint32_t highest = 0;
    ForAll([&](int token, float logit) {
      if (FirstBin(logit) != first_bin) return;
      lowest = min(lowest, KeyOf(logit));
      highest = max(highest, KeyOf(logit));
    });
    highest = static_cast<uint32_t>(OverCluster(highest, Larger));
    lowest = ~static_cast<uint32_t>(OverCluster(static_cast<uint32_t>(~lowest), Larger));
    while (true) {
      int shift = 0;
      while ((highest - lowest) >> shift >= kBins) ++shift;
      ClearBins();
      ForAll([&](int token, float logit) {
        const uint32_t key = KeyOf(logit);
        if (key >= lowest && key <= highest) Add((highest - key) >> shift, logit);
      });
      const int bin = FindBin<kByCount>(target, OwnBin(), crossing);
      highest -= static_cast<uint32_t>(bin) << shift;
      if (shift == 0) break;
      lowest = max(lowest, highest - ((1u << shift) - 1));
    }
    crossing.key = highest;
    crossing.mass_each = Weights::MassOf(weights_.Of(LogitOf(highest)));
    return crossing;
  }

  __device__ int vocab() const { return vocab_; }
  __device__ int rank() const { return rank_; }
  // What the cluster's threads wrote before it is seen by all behind it.
  __device__ void Sync() { cluster_.sync(); }

 private:
  struct Bin {
    Mass mass = 0;
    uint32_t count = 0;
  };
  // By rank.
  struct Told {
    const Mass* mass;
    const uint32_t* count;
  };

  static __device__ int Part(int vocab) { return (vocab + kBlocks - 1) / kBlocks; }
  static __device__ Mass Ranked(int token, float logit) {
    return Mass{KeyOf(logit)} << 32 | static_cast<uint32_t>(~token);
  }
  // Over the tokens of this block.
  template <typename Body>
  __device__ __forceinline__ void ForAll(Body body) {
    ForEach(logits_, begin_, end_, threadIdx.x, kThreads, body);
  }
  // The first lane that says yes; the last when none does.
  static __device__ int FirstOf(bool yes) {
    const uint32_t lanes = __ballot_sync(kAll, yes);
    return lanes == 0 ? ptx::kWarp - 1 : __ffs(lanes) - 1;
  }
  // Every thread gets the result.
  template <typename Combine>
  __device__ Mass OverBlock(Mass value, Combine combine) {
    value = OverWarp(value, combine);
    if (threadIdx.x % ptx::kWarp == 0) shared_.partial[threadIdx.x / ptx::kWarp] = value;
    __syncthreads();
    value = OverWarp(shared_.partial[threadIdx.x % ptx::kWarp], combine);
    __syncthreads();
    return value;
  }
  // Every block tells all of them its values.
  __device__ Told Tell(Mass mass, uint32_t count) {
    turn_ ^= 1;
    if (threadIdx.x < kBlocks) {
      Shared* other = cluster_.map_shared_rank(&shared_, threadIdx.x);
      other->told[turn_][rank_] = mass;
      other->told_count[turn_][rank_] = count;
    }
    Sync();
    return {shared_.told[turn_], shared_.told_count[turn_]};
  }
  template <typename Combine>
  __device__ Mass OverCluster(Mass value, Combine combine) {
    const Told told = Tell(OverBlock(value, combine), 0);
    value = told.mass[0];
    for (int i = 1; i < kBlocks; ++i) value = combine(value, told.mass[i]);
    return value;
  }
  __device__ int FirstBin(float logit) const {
    const float scaled = -weights_.Distance(logit) * kBinsPerUnit;
    return scaled < kBins - 1 ? static_cast<int>(scaled) : kBins - 1;
  }
  // The other blocks have read what is there: there was a Sync since.
  __device__ void ClearBins() {
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
  // The cluster's total of the bin that is this thread's.
  __device__ Bin OwnBin() {
    Sync();
    Bin bin;
    if (threadIdx.x >= kOwnBins) return bin;
    const int at = rank_ * kOwnBins + threadIdx.x;
    for (int i = 0; i < kBlocks; ++i) {
      const Shared* other = cluster_.map_shared_rank(&shared_, i);
      bin.mass += other->mass[at];
      bin.count += other->count[at];
    }
    return bin;
  }
  // The bin in which the running total reaches what `target` asks beyond what lies above already;
  // adds the bins before it to what lies above. `bin` is OwnBin().
  template <bool kByCount>
  __device__ int FindBin(Mass target, Bin bin, Crossing& crossing) {
    const int warp = threadIdx.x / ptx::kWarp;
    const Mass mass_upto = ScanWarp(bin.mass);
    const uint32_t count_upto = ScanWarp(bin.count);
    if (threadIdx.x % ptx::kWarp == ptx::kWarp - 1) {
      shared_.partial[warp] = mass_upto;
      shared_.partial_count[warp] = count_upto;
    }
    __syncthreads();
    Bin own;
    Mass mass_before = crossing.mass_above + mass_upto - bin.mass;
    uint32_t count_before = crossing.count_above + count_upto - bin.count;
    for (int i = 0; i < kOwnBins / ptx::kWarp; ++i) {
      own.mass += shared_.partial[i];
      own.count += shared_.partial_count[i];
      if (i >= warp) continue;
      mass_before += shared_.partial[i];
      count_before += shared_.partial_count[i];
    }
    const Told told = Tell(own.mass, own.count);
    for (int i = 0; i < rank_; ++i) {
      mass_before += told.mass[i];
      count_before += told.count[i];
    }
    const Mass before = kByCount ? Mass{count_before} : mass_before;
    const Mass upto = before + (kByCount ? Mass{bin.count} : bin.mass);
    if (before < target && upto >= target) {
      for (int i = 0; i < kBlocks; ++i) {
        Shared* other = cluster_.map_shared_rank(&shared_, i);
        other->found_bin = rank_ * kOwnBins + static_cast<int>(threadIdx.x);
        other->found_mass = mass_before;
        other->found_count = count_before;
      }
    }
    Sync();
    crossing.mass_above = shared_.found_mass;
    crossing.count_above = shared_.found_count;
    return shared_.found_bin;
  }

  const cooperative_groups::cluster_group cluster_ = cooperative_groups::this_cluster();
  float* const logits_;
  const int vocab_;
  const int rank_;
  const int begin_, end_;  // the tokens of this block
  Shared& shared_;
  int turn_ = 0;
  Weights weights_;
  Bin first_;
};

}  // namespace longhaul::sampling
