// The matrix unit's first operand is W and its second x, [64 rows of W, 16] x [rows of x, 16]^T, so
// that one row of x costs a width of 8, not 64. W streams through a ring of stages in shared
// memory, filled by one thread through the tensor copy engine; two warpgroups multiply, each 64
// rows of W, and drain the ring much faster than memory fills it.
//
// What keeps memory busy between one launch and the next: with few rows, two launches' CTAs fit
// into a multiprocessor at once. The next launch's start early and wait until the running ones have
// asked for all of their weights; then they fill their rings, while the running ones finish.
#include "kernels/cuda/decode_matmul.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma_narrow.cuh"

namespace longhaul {
DecodeMatmulKnobs decode_matmul_knobs;
namespace {

using Cut = DecodeMatmulCut;

constexpr int kWarpgroups = 2;  // that multiply
constexpr int kWarpgroupRows = 64;
constexpr int kConsumers = kWarpgroups * ptx::kWarpgroup;
constexpr int kThreads = kConsumers + ptx::kWarp;
constexpr int kWarpsOfGroup = ptx::kWarpgroup / ptx::kWarp;
constexpr int kStagesMax = 8;
constexpr int kProductColumnsMax = 128;  // of one wgmma; wider x is multiplied in blocks
constexpr int64_t kRowsMax = 256;        // of one launch

// How x of up to kColumns rows is multiplied.
template <int kColumns>
struct Config {
  static constexpr bool kSplit = kColumns > 16;          // see DecodeMatmulCut
  static constexpr int kCtas = kColumns <= 32 ? 2 : 1;  // that fit into a multiprocessor
  static constexpr int kBatchMax = kSplit ? 1 : Cut::kBatchMax;
  static constexpr int kBlockColumns = std::min(kColumns, kProductColumnsMax);
  static constexpr int kBlocks = kColumns / kBlockColumns;
  static constexpr int kXBytes = kColumns * ptx::kSwizzleRowBytes;  // of a unit
  static constexpr int kRingBytes = (kCtas == 2 ? 111 : 225) * 1024;
  static constexpr int kVectors = kColumns / 8;  // of four sums, of a thread
};

struct Arguments {
  Cut cut;
  Cut::Rows rows;
  uint32_t batch = 0;  // units of a stage
  uint32_t stages = 0;
  uint32_t stage_bytes = 0;
  int n = 0;
  int columns = 0;  // rows of x
  const float* bias = nullptr;
  void* out = nullptr;
  float4* partials = nullptr;
  uint32_t* arrivals = nullptr;
  uint32_t* streaming = nullptr;
  DecodeMatmulKnobs knobs;
};

struct Barriers {
  uint64_t full;
  uint64_t empty;
};

__device__ __forceinline__ void Stamp(const Arguments& arguments, int what) {
  if (arguments.knobs.trace == nullptr) return;
  uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  arguments.knobs.trace[blockIdx.x * 8 + what] = now;
}

// What a CTA does: all tiles of a group of rows, and of each the parts [part, part_end).
struct Work {
  uint32_t row;
  uint32_t row_end;
  uint32_t part;
  uint32_t part_end;

  __device__ Work(const Arguments& arguments, bool split) {
    const uint32_t group = split ? blockIdx.x / arguments.cut.parts : blockIdx.x;
    part = split ? blockIdx.x % arguments.cut.parts : 0;
    part_end = split ? part + 1 : arguments.cut.parts;
    row = group * arguments.rows.rows;
    row_end = min(row + arguments.rows.rows, static_cast<uint32_t>(arguments.n));
  }
};

// Goes over the stages of a CTA's work in their order.
class Walk {
 public:
  __device__ Walk(const Arguments& arguments, const Work& work)
      : arguments_(arguments), work_(work), row_(work.row) {
    StartPart(work.part);
  }
  __device__ __forceinline__ bool done() const { return row_ >= work_.row_end; }
  __device__ __forceinline__ uint32_t row() const { return row_; }
  __device__ __forceinline__ uint32_t unit() const { return unit_; }
  __device__ __forceinline__ uint32_t units() const {
    return min(arguments_.batch, unit_end_ - unit_);
  }
  __device__ __forceinline__ void Next() {
    unit_ += arguments_.batch;
    if (unit_ < unit_end_) return;
    if (part_ + 1 < work_.part_end) {
      StartPart(part_ + 1);
    } else {
      row_ += arguments_.rows.tile_rows;
      StartPart(work_.part);
    }
  }

 private:
  __device__ __forceinline__ void StartPart(uint32_t part) {
    part_ = part;
    unit_ = arguments_.cut.PartFirst(part);
    unit_end_ = arguments_.cut.PartFirst(part + 1);
  }
  const Arguments& arguments_;
  const Work& work_;
  uint32_t row_;
  uint32_t part_;
  uint32_t unit_;
  uint32_t unit_end_;
};

// A ring whose length is known at run time.
struct Ring {
  uint32_t stages;
  uint32_t stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// The copying thread. Weights may be read at once, x only when the kernels before have ended.
template <int kColumns>
__device__ __forceinline__ void Produce(const CUtensorMap& weight, const CUtensorMap& x,
                                        const Arguments& arguments, uint8_t* stages,
                                        Barriers* barriers) {
  using Shape = Config<kColumns>;
  const uint32_t weight_bytes = arguments.rows.tile_rows * ptx::kSwizzleRowBytes;  // of a unit
  const auto load_weight = [&](const Walk& walk, uint32_t stage) {
    uint64_t* full = &barriers[stage].full;
    uint8_t* to = stages + stage * arguments.stage_bytes;
    ptx::BarrierArriveExpect(full, walk.units() * (weight_bytes + Shape::kXBytes));
    for (uint32_t u = 0; u < walk.units(); ++u) {
      ptx::TmaLoad2d(to + u * weight_bytes, &weight, full, (walk.unit() + u) * Cut::kUnitColumns,
                     walk.row(), ptx::kEvictFirst);
    }
  };
  const auto load_x = [&](const Walk& walk, uint32_t stage) {
    uint8_t* to = stages + stage * arguments.stage_bytes + arguments.batch * weight_bytes;
    for (uint32_t u = 0; u < walk.units(); ++u) {
      for (int block = 0; block < Shape::kBlocks; ++block) {
        ptx::TmaLoad2d(to + u * Shape::kXBytes + block * (Shape::kXBytes / Shape::kBlocks), &x,
                       &barriers[stage].full, (walk.unit() + u) * Cut::kUnitColumns,
                       block * Shape::kBlockColumns, ptx::kEvictLast);
      }
    }
  };

  ptx::PrefetchTensorMap(&weight);
  ptx::PrefetchTensorMap(&x);
  const DecodeMatmulKnobs& knobs = arguments.knobs;
  Stamp(arguments, 0);
  if (Shape::kCtas == 2 && knobs.delay != 0) {
    for (int i = 0; i < 4000; ++i) {
      if (*static_cast<volatile uint32_t*>(knobs.streaming) <= knobs.delay - 1) break;
      __nanosleep(20);
    }
  }
  Stamp(arguments, 1);
  const Work work(arguments, Shape::kSplit);
  Walk walk(arguments, work);
  uint32_t early = 0;
  for (; early < arguments.stages && !walk.done(); ++early, walk.Next()) load_weight(walk, early);
  if (Shape::kCtas == 2 && knobs.delay != 0) atomicAdd(knobs.streaming, 1);
  if (knobs.trigger == 0) ptx::LetLaterKernelsStart();
  ptx::WaitForEarlierKernels();
  Stamp(arguments, 2);
  if (knobs.trigger == 1) ptx::LetLaterKernelsStart();
  Walk x_walk(arguments, work);
  for (uint32_t stage = 0; stage < early; ++stage, x_walk.Next()) load_x(x_walk, stage);
  for (Ring ring = {arguments.stages}; !walk.done(); ring.Next(), walk.Next()) {
    ptx::BarrierWait(&barriers[ring.stage].empty, ring.parity);
    load_weight(walk, ring.stage);
    load_x(walk, ring.stage);
  }
  Stamp(arguments, 4);
  if (Shape::kCtas == 2 && knobs.delay != 0) atomicSub(knobs.streaming, 1);
}

__device__ __forceinline__ float4 Add(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// A thread's part of a warpgroup's sums [64 rows of W, kColumns rows of x], in wgmma's own
// distribution: vector v holds two rows of W, 8 apart, by columns 8v and 8v + 1 from the thread's
// first.
template <int kColumns>
struct Sums {
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

  // `warpgroup_row` is the first of the warpgroup's rows of W, `row_end` the first not to store.
  __device__ __forceinline__ Sink(const Arguments& arguments, int warpgroup_row, int row_end)
      : n_(arguments.n) {
    const int thread = threadIdx.x % ptx::kWarpgroup;
    const int row = warpgroup_row + thread / ptx::kWarp * 16 + thread % ptx::kWarp / 4;
    const int column = thread % 4 * 2;
    rows_ = row + 8 < row_end ? 2 : row < row_end ? 1 : 0;
    columns_ = arguments.columns - column;
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
  int rows_;     // how many of the thread's two are stored
  int columns_;  // that are left from the thread's first of the next vector on
  Element* out_;
  float bias_low_ = 0.0f;
  float bias_high_ = 0.0f;
};

// Leaves this CTA's part of a tile for the last of the tile's CTAs to come, which adds all parts in
// their order and stores the sums. Nobody waits for anybody.
template <int kColumns, DecodeOutput kOutput>
__device__ __forceinline__ void Share(const Arguments& arguments, uint32_t* arrived_last,
                                      const Sums<kColumns>& sums, Sink<kOutput> sink) {
  constexpr int kVectors = Config<kColumns>::kVectors;
  constexpr int kSlot = kVectors * ptx::kWarpgroup;  // of one warpgroup's part
  const int thread = threadIdx.x % ptx::kWarpgroup;
  const int warpgroup = threadIdx.x / ptx::kWarpgroup;
  const uint32_t parts = arguments.cut.parts;
  const uint32_t group = blockIdx.x / parts;
  float4* first = arguments.partials +
                  (group * parts * kWarpgroups + warpgroup) * uint64_t{kSlot} + thread;
  float4* mine = first + blockIdx.x % parts * uint64_t{kWarpgroups * kSlot};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) __stcg(mine + v * ptx::kWarpgroup, sums.vector(v));
  ptx::NamedSync(1 + warpgroup, ptx::kWarpgroup);
  if (thread == 0) {
    uint32_t* arrivals = arguments.arrivals + group * kWarpgroups + warpgroup;
    const bool is_last = ptx::AddAcquireRelease(arrivals, 1) + 1 == parts;
    if (is_last) *arrivals = 0;
    *arrived_last = is_last ? 1 : 0;
  }
  ptx::NamedSync(1 + warpgroup, ptx::kWarpgroup);
  if (*arrived_last == 0) return;

  // Many loads at once, so that little of the time is waiting.
  constexpr int kAtOnce = std::min(kVectors, 16);
#pragma unroll 1
  for (int v = 0; v < kVectors; v += kAtOnce) {
    float4 total[kAtOnce] = {};
#pragma unroll 1
    for (uint32_t part = 0; part < parts; ++part) {
      const float4* from =
          first + part * uint64_t{kWarpgroups * kSlot} + v * ptx::kWarpgroup;
      float4 piece[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) piece[i] = __ldcg(from + i * ptx::kWarpgroup);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) total[i] = Add(total[i], piece[i]);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) sink.Store(total[i]);
  }
}

// A warpgroup that multiplies: its 64 rows of each of the CTA's tiles.
template <int kColumns, DecodeOutput kOutput>
__device__ __forceinline__ void Consume(const Arguments& arguments, const uint8_t* stages,
                                        Barriers* barriers, uint32_t* arrived_last) {
  using Shape = Config<kColumns>;
  const int warpgroup = threadIdx.x / ptx::kWarpgroup;
  const bool is_signaller = threadIdx.x % ptx::kWarp == 0;
  const uint32_t weight_bytes = arguments.rows.tile_rows * ptx::kSwizzleRowBytes;
  const Work work(arguments, Shape::kSplit);
  ptx::WaitForEarlierKernels();
  Ring ring = {arguments.stages};
  for (uint32_t row = work.row; row < work.row_end; row += arguments.rows.tile_rows) {
    Sums<kColumns> total = {};
    for (uint32_t part = work.part; part < work.part_end; ++part) {
      const uint32_t unit_first = arguments.cut.PartFirst(part);
      const uint32_t unit_end = arguments.cut.PartFirst(part + 1);
      Sums<kColumns> sums = {};
      uint32_t stage_before = 0;
      for (uint32_t unit = unit_first; unit < unit_end; unit += arguments.batch) {
        const uint8_t* stage = stages + ring.stage * arguments.stage_bytes;
        uint64_t a =
            ptx::DescriptorKMajor(stage + warpgroup * kWarpgroupRows * ptx::kSwizzleRowBytes);
        uint64_t b = ptx::DescriptorKMajor(stage + arguments.batch * weight_bytes);
        const uint32_t units = min(arguments.batch, unit_end - unit);
        ptx::BarrierWait(&barriers[ring.stage].full, ring.parity);
        ptx::WgmmaFence();
        for (uint32_t u = 0; u < units; ++u) {
#pragma unroll
          for (int block = 0; block < Shape::kBlocks; ++block) {
#pragma unroll
            for (int step = 0; step < static_cast<int>(Cut::kUnitColumns) / 16; ++step) {
              ptx::WgmmaKMajor(
                  sums.value[block], a + step * ptx::kStepK16,
                  b + block * (Shape::kXBytes / Shape::kBlocks >> 4) + step * ptx::kStepK16);
            }
          }
          a += weight_bytes >> 4;
          b += Shape::kXBytes >> 4;
        }
        ptx::WgmmaCommit();
        // The stage before this one has been read once its products are done.
        if (unit > unit_first) {
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
        for (int i = 0; i < Sums<kColumns>::kBlockFloats; ++i) {
          ptx::KeepInPlace(sums.value[block][i]);
          if (Shape::kSplit) {
            total.value[block][i] = sums.value[block][i];
          } else {
            total.value[block][i] += sums.value[block][i];
          }
        }
      }
    }
    if (threadIdx.x == 0 && row + arguments.rows.tile_rows >= work.row_end) Stamp(arguments, 5);
    Sink<kOutput> sink(arguments, row + warpgroup * kWarpgroupRows,
                       min(row + arguments.rows.tile_rows, work.row_end));
    if (Shape::kSplit && arguments.cut.parts > 1) {
      Share<kColumns>(arguments, arrived_last + warpgroup, total, sink);
    } else {
#pragma unroll
      for (int v = 0; v < Shape::kVectors; ++v) sink.Store(total.vector(v));
    }
  }
  if (threadIdx.x == 0) Stamp(arguments, 6);
}

template <int kColumns, DecodeOutput kOutput>
__global__ void __launch_bounds__(kThreads, Config<kColumns>::kCtas)
    DecodeMatmulKernel(const __grid_constant__ CUtensorMap weight,
                       const __grid_constant__ CUtensorMap x,
                       const __grid_constant__ Arguments arguments) {
  extern __shared__ uint8_t shared[];
  __shared__ Barriers barriers[kStagesMax];
  __shared__ uint32_t arrived_last[kWarpgroups];
  const uint32_t address = ptx::SharedAddress(shared);
  uint8_t* stages = shared + (-address & (ptx::kSwizzleAtomBytes - 1));
  // A tile that one warpgroup can multiply needs no second.
  const int warpgroups = arguments.rows.tile_rows > kWarpgroupRows ? 2 : 1;
  if (threadIdx.x == 0) {
    for (Barriers& stage : barriers) {
      ptx::BarrierInit(&stage.full, 1);
      ptx::BarrierInit(&stage.empty, warpgroups * kWarpsOfGroup);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  const int warpgroup = threadIdx.x / ptx::kWarpgroup;
  if (threadIdx.x == kConsumers) {
    Produce<kColumns>(weight, x, arguments, stages, barriers);
  } else if (warpgroup < warpgroups) {
    Consume<kColumns, kOutput>(arguments, stages, barriers, arrived_last);
  }
}

using Kernel = void (*)(CUtensorMap, CUtensorMap, Arguments);

// The kernels for one width, one for each output.
struct Family {
  Kernel kernels[3];
  bool split;
  int block_columns;
  uint32_t batch_max;
  uint32_t x_bytes;
  uint32_t ring_bytes;
};

template <int kColumns>
constexpr Family FamilyOf() {
  using Shape = Config<kColumns>;
  return {{DecodeMatmulKernel<kColumns, DecodeOutput::kBf16>,
           DecodeMatmulKernel<kColumns, DecodeOutput::kFloat>,
           DecodeMatmulKernel<kColumns, DecodeOutput::kFloatAccumulate>},
          Shape::kSplit,
          Shape::kBlockColumns,
          Shape::kBatchMax,
          Shape::kXBytes,
          Shape::kRingBytes};
}

constexpr int kColumnsMin = 8;
const Family kFamilies[] = {FamilyOf<8>(),  FamilyOf<16>(),  FamilyOf<32>(),
                            FamilyOf<64>(), FamilyOf<128>(), FamilyOf<256>()};

const Family& FamilyFor(int64_t rows) {
  const Family* family = kFamilies;
  for (int64_t columns = kColumnsMin; columns < rows; columns *= 2) ++family;
  return *family;
}

void Launch(const DecodeMatmulPlan& plan, const void* x, DecodeOutput output, Arguments arguments,
            cudaStream_t stream) {
  const Family& family = FamilyFor(arguments.columns);
  const CUtensorMap x_map = MakeMatrixMap(x, arguments.columns, plan.k, family.block_columns);
  arguments.rows = family.split ? plan.cut.split : plan.cut.whole;
  arguments.batch = std::min(arguments.rows.batch, family.batch_max);
  const uint32_t weight_bytes = arguments.rows.tile_rows * ptx::kSwizzleRowBytes;
  arguments.stage_bytes = arguments.batch * (weight_bytes + family.x_bytes);
  // A warpgroup reads 64 rows of the weight, also where the tile has less.
  const uint32_t warpgroups = arguments.rows.tile_rows > kWarpgroupRows ? 2 : 1;
  const uint32_t read_bytes = (arguments.batch - 1) * weight_bytes +
                              warpgroups * kWarpgroupRows * ptx::kSwizzleRowBytes;
  const uint32_t behind = std::max(read_bytes, arguments.stage_bytes) - arguments.stage_bytes;
  arguments.stages = std::min<uint32_t>(
      kStagesMax,
      (family.ring_bytes - ptx::kSwizzleAtomBytes - behind) / arguments.stage_bytes);

  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(arguments.rows.groups * (family.split ? plan.cut.parts : 1));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = family.ring_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  CudaCheck(cudaLaunchKernelEx(&config, family.kernels[static_cast<int>(output)],
                               family.split ? plan.split_weight : plan.whole_weight, x_map,
                               arguments),
            "decode product");
}

}  // namespace

DecodeMatmulPlan PlanDecodeMatmul(const void* weight, int64_t n, int64_t k, int multiprocessors) {
  LH_CHECK(n > 0 && k > 0 && k % 8 == 0 && n < int64_t{1} << 31 && k < int64_t{1} << 24,
           absl::StrCat("a weight of ", n, "x", k));
  DecodeMatmulPlan plan;
  plan.n = n;
  plan.k = k;
  plan.cut = CutDecodeMatmul(n, k, multiprocessors);
  plan.whole_weight = MakeMatrixMap(weight, n, k, plan.cut.whole.tile_rows);
  plan.split_weight = MakeMatrixMap(weight, n, k, plan.cut.split.tile_rows);
  for (const Family& family : kFamilies) {
    for (const Kernel kernel : family.kernels) {
      CudaCheck(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     family.ring_bytes),
                "shared memory of the decode product");
    }
  }
  return plan;
}

int64_t DecodeMatmulPartialBytes(int64_t rows, int multiprocessors) {
  int64_t columns = kColumnsMin;
  while (columns < std::min(rows, kRowsMax)) columns *= 2;
  return multiprocessors * int64_t{Cut::kTileRows} * columns * int64_t{sizeof(float)};
}

int64_t DecodeMatmulArrivalBytes(int multiprocessors) {
  return multiprocessors * kWarpgroups * int64_t{sizeof(uint32_t)};
}

void LaunchDecodeMatmul(const DecodeMatmulPlan& plan, const void* x, int64_t rows,
                        const float* bias, void* out, DecodeOutput output,
                        const DecodeMatmulWorkspace& workspace, cudaStream_t stream) {
  const int64_t out_bytes = output == DecodeOutput::kBf16 ? sizeof(__nv_bfloat16) : sizeof(float);
  for (int64_t row = 0; row < rows; row += kRowsMax) {
    Arguments arguments;
    arguments.cut = plan.cut;
    arguments.n = static_cast<int>(plan.n);
    arguments.columns = static_cast<int>(std::min(rows - row, kRowsMax));
    arguments.bias = bias;
    arguments.out = static_cast<std::byte*>(out) + row * plan.n * out_bytes;
    arguments.partials = reinterpret_cast<float4*>(workspace.partials);
    arguments.arrivals = workspace.arrivals;
    arguments.knobs = decode_matmul_knobs;
    if (decode_matmul_knobs.trace != nullptr) decode_matmul_knobs.trace += 132 * 8;
    Launch(plan, static_cast<const __nv_bfloat16*>(x) + row * plan.k, output, arguments, stream);
  }
}

}  // namespace longhaul
