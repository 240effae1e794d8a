// The matrix unit's first operand is W and its second x, [64 rows of W, 16] x [rows of x, 16]^T, so
// that one row of x costs a width of 8, not 64. W streams through a ring of stages in shared
// memory, filled by one thread through the tensor copy engine; two warpgroups multiply, each 64
// rows of W, and drain the ring much faster than memory fills it.
//
// What keeps memory busy between one launch and the next: with few rows, two launches' CTAs fit
// into a multiprocessor at once. The next launch's start as soon as there is room, and fill their
// rings while the running ones sum up and store; only then do they wait.
#include <cuda_bf16.h>

#include <algorithm>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/decode_matmul.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma_narrow.cuh"

namespace longhaul {
namespace {

using Cut = DecodeMatmulCut;

constexpr int kConsumerWarps = 8;
constexpr int kWarpgroupRows = 64;
constexpr int kThreads = kConsumerWarps * ptx::kWarp + ptx::kWarp;
constexpr int kWeightBytes = Cut::kHalfRows * ptx::kSwizzleRowBytes;
constexpr int kProductColumnsMax = 128;  // of one wgmma; wider x is multiplied in blocks
constexpr int64_t kRowsMax = 256;        // of one launch

// How x of up to kColumns rows is multiplied.
template <int kColumns>
struct Config {
  static constexpr int kBlockColumns = std::min(kColumns, kProductColumnsMax);
  static constexpr int kBlocks = kColumns / kBlockColumns;
  static constexpr int kBlockBytes = kBlockColumns * ptx::kSwizzleRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kBlocks * kBlockBytes;
  static constexpr int kCtas = kColumns <= 32 ? 2 : 1;  // that fit into a multiprocessor
  static constexpr int kStages = (kCtas == 2 ? 110 : 224) * 1024 / kStageBytes;
  static constexpr int kSharedBytes = ptx::kSwizzleAtomBytes + kStages * kStageBytes;
  static constexpr int kPartialFloats = kWarpgroupRows * kColumns;  // of one warpgroup
};

struct Arguments {
  Cut cut;
  int n = 0;
  int rows = 0;
  const float* bias = nullptr;
  void* out = nullptr;
  float* partials = nullptr;
  uint32_t* arrivals = nullptr;
};

// Walks over a worker's units: which rows and columns of the weight are next.
struct Walk {
  uint32_t tile;
  uint32_t unit;  // of the tile

  __device__ Walk(const Cut& cut, uint32_t first)
      : tile(first / cut.tile_units), unit(first % cut.tile_units) {}
  __device__ __forceinline__ void Next(const Cut& cut) {
    if (++unit == cut.tile_units) {
      unit = 0;
      ++tile;
    }
  }
  __device__ __forceinline__ int column() const { return unit * Cut::kUnitColumns; }
  __device__ __forceinline__ int row(uint32_t half) const {
    return tile * Cut::kTileRows + half * Cut::kHalfRows;
  }
};

struct Barriers {
  uint64_t full;
  uint64_t empty;
};

__device__ __forceinline__ float4 Add(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// The copying thread. Weights may be read at once, x only when the kernels before have ended.
template <int kColumns>
__device__ __forceinline__ void Produce(const CUtensorMap& weight, const CUtensorMap& x,
                                        const Arguments& arguments, uint32_t worker, uint32_t half,
                                        uint8_t* stages, Barriers* barriers) {
  using Shape = Config<kColumns>;
  const Cut cut = arguments.cut;
  const uint32_t first = cut.FirstUnit(worker);
  const uint32_t units = cut.FirstUnit(worker + 1) - first;
  const uint32_t early = min(units, uint32_t{Shape::kStages});
  const auto load_weight = [&](const Walk& walk, uint32_t stage) {
    ptx::BarrierArriveExpect(&barriers[stage].full, Shape::kStageBytes);
    ptx::TmaLoad2d(stages + stage * Shape::kStageBytes, &weight, &barriers[stage].full,
                   walk.column(), walk.row(half), ptx::kEvictFirst);
  };
  const auto load_x = [&](const Walk& walk, uint32_t stage) {
    for (int block = 0; block < Shape::kBlocks; ++block) {
      ptx::TmaLoad2d(
          stages + stage * Shape::kStageBytes + kWeightBytes + block * Shape::kBlockBytes, &x,
          &barriers[stage].full, walk.column(), block * Shape::kBlockColumns, ptx::kEvictLast);
    }
  };

  ptx::PrefetchTensorMap(&weight);
  ptx::PrefetchTensorMap(&x);
  Walk walk(cut, first);
  for (uint32_t i = 0; i < early; ++i, walk.Next(cut)) load_weight(walk, i);
  ptx::LetLaterKernelsStart();

  ptx::WaitForEarlierKernels();
  Walk x_walk(cut, first);
  for (uint32_t i = 0; i < early; ++i, x_walk.Next(cut)) load_x(x_walk, i);
  ptx::Ring<Shape::kStages> ring;
  for (uint32_t i = early; i < units; ++i, walk.Next(cut)) {
    ptx::BarrierWait(&barriers[ring.stage].empty, ring.parity);
    load_weight(walk, ring.stage);
    load_x(walk, ring.stage);
    ring.Next();
  }
}

// A thread's part of a warpgroup's sums [64 rows of W, kColumns rows of x], in wgmma's own
// distribution: vector v holds two rows of W, 8 apart, by columns 8v and 8v + 1 from the thread's
// first.
template <int kColumns>
struct Sums {
  static constexpr int kVectors = kColumns / 8;
  static constexpr int kBlockFloats = Config<kColumns>::kBlockColumns / 2;
  float value[Config<kColumns>::kBlocks][kBlockFloats];
  __device__ __forceinline__ float4 vector(int v) const {
    const float* at = &value[v * 4 / kBlockFloats][v * 4 % kBlockFloats];
    return make_float4(at[0], at[1], at[2], at[3]);
  }
};

// Where a thread's sums go: element (row of W, column) of the tile is out[column][row].
template <DecodeOutput kOutput>
class Sink {
 public:
  using Element = std::conditional_t<kOutput == DecodeOutput::kBf16, __nv_bfloat16, float>;

  __device__ __forceinline__ Sink(const Arguments& arguments, int warpgroup_row) : n_(arguments.n) {
    const int thread = threadIdx.x % ptx::kWarpgroup;
    const int row = warpgroup_row + thread / ptx::kWarp * 16 + thread % ptx::kWarp / 4;
    const int column = thread % 4 * 2;
    rows_ = row + 8 < n_ ? 2 : row < n_ ? 1 : 0;
    columns_ = arguments.rows - column;
    out_ = static_cast<Element*>(arguments.out) + int64_t{column} * n_ + row;
    if (arguments.bias != nullptr) {
      if (rows_ > 0) bias_low_ = arguments.bias[row];
      if (rows_ > 1) bias_high_ = arguments.bias[row + 8];
    }
  }
  // The thread's next vector, of columns 8 further on.
  __device__ __forceinline__ void Store(float4 value) {
    if (columns_ > 0) {
      if (rows_ > 0) StoreOne(out_, value.x + bias_low_);
      if (rows_ > 1) StoreOne(out_ + 8, value.z + bias_high_);
    }
    if (columns_ > 1) {
      if (rows_ > 0) StoreOne(out_ + n_, value.y + bias_low_);
      if (rows_ > 1) StoreOne(out_ + n_ + 8, value.w + bias_high_);
    }
    columns_ -= 8;
    out_ += int64_t{8} * n_;
  }

 private:
  __device__ __forceinline__ static void StoreOne(Element* to, float value) {
    if constexpr (kOutput == DecodeOutput::kBf16) {
      *to = __float2bfloat16_rn(value);
    } else if constexpr (kOutput == DecodeOutput::kFloat) {
      *to = value;
    } else {
      // One addition an element, so its order is no question; nothing here waits for it.
      atomicAdd(to, value);
    }
  }

  int n_;
  int rows_;     // how many of the thread's two are W's
  int columns_;  // that are left from the thread's first of the next vector on
  Element* out_;
  float bias_low_ = 0.0f;
  float bias_high_ = 0.0f;
};

// The part of partials that a worker's warpgroup leaves the sums of a shared tile in: a worker has
// at most two such tiles, its first and its last.
template <int kColumns>
__device__ __forceinline__ float4* PartialOf(const Arguments& arguments, uint32_t worker,
                                             uint32_t tile, uint32_t quarter) {
  const bool is_first = arguments.cut.FirstUnit(worker) / arguments.cut.tile_units == tile;
  const uint32_t slot = (worker * Cut::kQuarters + quarter) * 2 + (is_first ? 0 : 1);
  return reinterpret_cast<float4*>(arguments.partials +
                                   uint64_t{slot} * Config<kColumns>::kPartialFloats);
}

// Leaves this worker's part of a shared tile for the last of its sharers to come, which adds all
// parts in the order of their columns and stores the sums. Nobody waits for anybody.
template <int kColumns, DecodeOutput kOutput>
__device__ __forceinline__ void Share(const Arguments& arguments, uint32_t worker, uint32_t tile,
                                      uint32_t quarter, uint32_t* arrived_last,
                                      const Sums<kColumns>& sums, Sink<kOutput> sink) {
  const Cut cut = arguments.cut;
  const int thread = threadIdx.x % ptx::kWarpgroup;
  const int barrier = 1 + threadIdx.x / ptx::kWarpgroup;
  const uint32_t first_sharer = cut.WorkerOf(tile * cut.tile_units);
  const uint32_t sharers = cut.WorkerOf((tile + 1) * cut.tile_units - 1) - first_sharer + 1;

  float4* mine = PartialOf<kColumns>(arguments, worker, tile, quarter) + thread;
#pragma unroll
  for (int v = 0; v < Sums<kColumns>::kVectors; ++v) {
    __stcg(mine + v * ptx::kWarpgroup, sums.vector(v));
  }
  ptx::NamedSync(barrier, ptx::kWarpgroup);
  if (thread == 0) {
    uint32_t* arrivals = arguments.arrivals + tile * Cut::kQuarters + quarter;
    const bool is_last = ptx::AddAcquireRelease(arrivals, 1) + 1 == sharers;
    if (is_last) *arrivals = 0;
    *arrived_last = is_last ? 1 : 0;
  }
  ptx::NamedSync(barrier, ptx::kWarpgroup);
  if (*arrived_last == 0) return;

  // Several sharers' vectors are loaded at once, so that little of the time is waiting.
  constexpr int kVectorsAtOnce = std::min(Sums<kColumns>::kVectors, kColumns <= 32 ? 4 : 8);
  constexpr int kSharersAtOnce = kColumns <= 16 ? 6 : kColumns == 32 ? 3 : 2;
#pragma unroll 1
  for (int v = 0; v < Sums<kColumns>::kVectors; v += kVectorsAtOnce) {
    float4 total[kVectorsAtOnce] = {};
#pragma unroll 1
    for (uint32_t sharer = 0; sharer < sharers; sharer += kSharersAtOnce) {
      float4 part[kSharersAtOnce][kVectorsAtOnce];
#pragma unroll
      for (int s = 0; s < kSharersAtOnce; ++s) {
        const uint32_t from_sharer = first_sharer + min(sharer + s, sharers - 1);
        const float4* from = PartialOf<kColumns>(arguments, from_sharer, tile, quarter) +
                             v * ptx::kWarpgroup + thread;
#pragma unroll
        for (int i = 0; i < kVectorsAtOnce; ++i) part[s][i] = __ldcg(from + i * ptx::kWarpgroup);
      }
#pragma unroll
      for (int s = 0; s < kSharersAtOnce; ++s) {
        if (sharer + s < sharers) {
#pragma unroll
          for (int i = 0; i < kVectorsAtOnce; ++i) total[i] = Add(total[i], part[s][i]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kVectorsAtOnce; ++i) sink.Store(total[i]);
  }
}

// A warpgroup that multiplies: a quarter of each of the worker's tiles.
template <int kColumns, DecodeOutput kOutput>
__device__ __forceinline__ void Consume(const Arguments& arguments, uint32_t worker, uint32_t half,
                                        const uint8_t* stages, Barriers* barriers,
                                        uint32_t* arrived_last) {
  using Shape = Config<kColumns>;
  const Cut cut = arguments.cut;
  const int warpgroup = threadIdx.x / ptx::kWarpgroup;
  const bool is_signaller = threadIdx.x % ptx::kWarp == 0;
  const uint32_t quarter = half * 2 + warpgroup;
  const uint32_t end = cut.FirstUnit(worker + 1);
  uint32_t unit = cut.FirstUnit(worker);
  ptx::WaitForEarlierKernels();
  ptx::Ring<Shape::kStages> ring;
  while (unit < end) {
    const uint32_t tile = unit / cut.tile_units;
    const uint32_t tile_first = tile * cut.tile_units;
    const uint32_t segment_first = unit;
    const uint32_t segment_end = min(end, tile_first + cut.tile_units);
    Sums<kColumns> sums = {};
    uint32_t stage_before = 0;
    for (; unit < segment_end; ++unit) {
      const uint8_t* stage = stages + ring.stage * Shape::kStageBytes;
      const uint64_t a =
          ptx::DescriptorKMajor(stage + warpgroup * kWarpgroupRows * ptx::kSwizzleRowBytes);
      ptx::BarrierWait(&barriers[ring.stage].full, ring.parity);
      ptx::WgmmaFence();
#pragma unroll
      for (int block = 0; block < Shape::kBlocks; ++block) {
        const uint64_t b = ptx::DescriptorKMajor(stage + kWeightBytes + block * Shape::kBlockBytes);
#pragma unroll
        for (int step = 0; step < Cut::kUnitColumns / 16; ++step) {
          ptx::WgmmaKMajor(sums.value[block], a + step * ptx::kStepK16, b + step * ptx::kStepK16);
        }
      }
      ptx::WgmmaCommit();
      // The stage before this one has been read once its products are done.
      if (unit > segment_first) {
        ptx::WgmmaWait<1>();
        if (is_signaller) ptx::BarrierArrive(&barriers[stage_before].empty);
      }
      stage_before = ring.stage;
      ring.Next();
    }
    ptx::WgmmaWait<0>();
    if (is_signaller) ptx::BarrierArrive(&barriers[stage_before].empty);
#pragma unroll
    for (int block = 0; block < Shape::kBlocks; ++block) {
#pragma unroll
      for (float& value : sums.value[block]) ptx::KeepInPlace(value);
    }

    Sink<kOutput> sink(arguments, tile * Cut::kTileRows + quarter * kWarpgroupRows);
    if (segment_first == tile_first && segment_end == tile_first + cut.tile_units) {
#pragma unroll
      for (int v = 0; v < Sums<kColumns>::kVectors; ++v) sink.Store(sums.vector(v));
    } else {
      Share<kColumns>(arguments, worker, tile, quarter, arrived_last + warpgroup, sums, sink);
    }
  }
}

template <int kColumns, DecodeOutput kOutput>
__global__ void __launch_bounds__(kThreads, Config<kColumns>::kCtas)
    DecodeMatmulKernel(const __grid_constant__ CUtensorMap weight,
                       const __grid_constant__ CUtensorMap x,
                       const __grid_constant__ Arguments arguments) {
  using Shape = Config<kColumns>;
  extern __shared__ uint8_t shared[];
  __shared__ Barriers barriers[Shape::kStages];
  __shared__ uint32_t arrived_last[kConsumerWarps * ptx::kWarp / ptx::kWarpgroup];
  const uint32_t address = ptx::SharedAddress(shared);
  uint8_t* stages = shared + (-address & (ptx::kSwizzleAtomBytes - 1));
  const uint32_t worker = blockIdx.x / 2;
  const uint32_t half = blockIdx.x % 2;
  if (threadIdx.x == 0) {
    for (Barriers& stage : barriers) {
      ptx::BarrierInit(&stage.full, 1);
      ptx::BarrierInit(&stage.empty, kConsumerWarps);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  if (threadIdx.x >= kConsumerWarps * ptx::kWarp) {
    if (threadIdx.x == kConsumerWarps * ptx::kWarp) {
      Produce<kColumns>(weight, x, arguments, worker, half, stages, barriers);
    }
  } else {
    Consume<kColumns, kOutput>(arguments, worker, half, stages, barriers, arrived_last);
  }
}

using Kernel = void (*)(CUtensorMap, CUtensorMap, Arguments);

// The kernel for an output, of those for one width.
struct Family {
  Kernel kernels[3];
  int shared_bytes;
  int block_columns;
};

template <int kColumns>
constexpr Family FamilyOf() {
  return {{DecodeMatmulKernel<kColumns, DecodeOutput::kBf16>,
           DecodeMatmulKernel<kColumns, DecodeOutput::kFloat>,
           DecodeMatmulKernel<kColumns, DecodeOutput::kFloatAccumulate>},
          Config<kColumns>::kSharedBytes,
          Config<kColumns>::kBlockColumns};
}

constexpr int kColumnsMin = 8;
const Family kFamilies[] = {FamilyOf<8>(),  FamilyOf<16>(),  FamilyOf<32>(),
                            FamilyOf<64>(), FamilyOf<128>(), FamilyOf<256>()};

const Family& FamilyFor(int64_t rows) {
  const Family* family = kFamilies;
  for (int64_t columns = kColumnsMin; columns < rows; columns *= 2) ++family;
  return *family;
}

void Launch(const DecodeMatmulPlan& plan, const void* x, DecodeOutput output,
            const Arguments& arguments, cudaStream_t stream) {
  const Family& family = FamilyFor(arguments.rows);
  const CUtensorMap x_map = MakeMatrixMap(x, arguments.rows, plan.k, family.block_columns);
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(plan.cut.workers * 2);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = family.shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  CudaCheck(cudaLaunchKernelEx(&config, family.kernels[static_cast<int>(output)], plan.weight,
                               x_map, arguments),
            "decode product");
}

}  // namespace

DecodeMatmulPlan PlanDecodeMatmul(const void* weight, int64_t n, int64_t k, int multiprocessors) {
  LH_CHECK(n > 0 && k > 0 && k % 8 == 0, absl::StrCat("a weight of ", n, "x", k));
  DecodeMatmulPlan plan;
  plan.weight = MakeMatrixMap(weight, n, k, Cut::kHalfRows);
  plan.n = n;
  plan.k = k;
  plan.cut = CutDecodeMatmul(n, k, multiprocessors);
  LH_CHECK((uint64_t{plan.cut.units()} + 1) * (plan.cut.workers + 1) < uint64_t{1} << 32,
           absl::StrCat("a weight of ", n, "x", k, " has too many units"));
  for (const Family& family : kFamilies) {
    for (const Kernel kernel : family.kernels) {
      CudaCheck(
          cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, family.shared_bytes),
          "shared memory of the decode product");
    }
  }
  return plan;
}

int64_t DecodeMatmulPartialBytes(int64_t rows, int multiprocessors) {
  int64_t columns = kColumnsMin;
  while (columns < std::min(rows, kRowsMax)) columns *= 2;
  const int64_t workers = std::max(multiprocessors / 2, 1);
  return workers * 2 * Cut::kTileRows * columns * int64_t{sizeof(float)};
}

int64_t DecodeMatmulArrivalBytes(int64_t n) {
  return (n + Cut::kTileRows - 1) / Cut::kTileRows * Cut::kQuarters * int64_t{sizeof(uint32_t)};
}

void LaunchDecodeMatmul(const DecodeMatmulPlan& plan, const void* x, int64_t rows,
                        const float* bias, void* out, DecodeOutput output,
                        const DecodeMatmulWorkspace& workspace, cudaStream_t stream) {
  const int64_t out_bytes = output == DecodeOutput::kBf16 ? sizeof(__nv_bfloat16) : sizeof(float);
  for (int64_t row = 0; row < rows; row += kRowsMax) {
    Arguments arguments;
    arguments.cut = plan.cut;
    arguments.n = static_cast<int>(plan.n);
    arguments.rows = static_cast<int>(std::min(rows - row, kRowsMax));
    arguments.bias = bias;
    arguments.out = static_cast<std::byte*>(out) + row * plan.n * out_bytes;
    arguments.partials = workspace.partials;
    arguments.arrivals = workspace.arrivals;
    const void* x_rows = static_cast<const __nv_bfloat16*>(x) + row * plan.k;
    Launch(plan, x_rows, output, arguments, stream);
  }
}

}  // namespace longhaul
