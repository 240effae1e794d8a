// The matrix unit's first operand is W and its second x, [64 rows of W, 16] x [rows of x, 16]^T, so
// that one row of x costs a width of 8, not 64. W streams through a ring of stages in shared
// memory, filled by one thread through the tensor copy engine; two warpgroups multiply, each 64
// rows of W, and drain the ring much faster than memory fills it.
//
// What keeps memory busy between one launch and the next: with few rows, two launches' CTAs fit
// into a multiprocessor at once. The next launch's start early and wait until the running ones have
// asked for all of their weights; then they fill their rings, while the running ones finish.
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
DecodeMatmulKnobs decode_matmul_knobs;
namespace {

using Cut = DecodeMatmulCut;

constexpr int kWarpgroups = 2;  // that multiply
constexpr int kWarpgroupRows = 64;
constexpr int kConsumers = kWarpgroups * ptx::kWarpgroup;
constexpr uint32_t kProducers =
    2;  // one thread alone does not keep a multiprocessor's copies coming
constexpr int kThreads = kConsumers + kProducers * ptx::kWarp;
constexpr int kWarpsOfGroup = ptx::kWarpgroup / ptx::kWarp;
constexpr int kStagesMax = 8;
constexpr int kProductColumnsMax = 128;  // of one wgmma; wider x is multiplied in blocks
constexpr int64_t kRowsMax = 256;        // of one launch

// How x of up to kColumns rows is multiplied.
template <int kColumns>
struct Config {
  static constexpr int kCtas = kColumns <= 32 ? 2 : 1;  // that fit into a multiprocessor
  static constexpr int kBlockColumns = std::min(kColumns, kProductColumnsMax);
  static constexpr int kBlocks = kColumns / kBlockColumns;
  static constexpr int kBlockBytes = kBlockColumns * ptx::kSwizzleRowBytes;
  static constexpr int kXBytes = kBlocks * kBlockBytes;  // of a stage
  static constexpr int kRingBytes = (kCtas == 2 ? 111 : 225) * 1024;
  static constexpr int kVectors = kColumns / 8;  // of four sums, of a thread
  static_assert(kVectors * kConsumers * sizeof(float4) <= kRingBytes, "sums take the ring's place");
};

struct Arguments {
  Cut cut;
  uint32_t stages = 0;
  uint32_t stage_bytes = 0;
  int n = 0;
  int columns = 0;  // rows of x
  const float* bias = nullptr;
  void* out = nullptr;
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

// Goes over the stages of a CTA's work in their order: the tiles of its group, and the units of its
// part for each.
class Walk {
 public:
  __device__ explicit Walk(const Arguments& arguments) {
    const Cut& cut = arguments.cut;
    const uint32_t group = blockIdx.x / cut.parts;
    const uint32_t part = blockIdx.x % cut.parts;
    row_ = group * cut.rows;
    row_end_ = min(row_ + cut.rows, static_cast<uint32_t>(arguments.n));
    tile_rows_ = cut.tile_rows;
    part_first_ = cut.PartFirst(part);
    part_end_ = cut.PartFirst(part + 1);
    start_ = cut.PartStart(part, group);
    unit_ = start_;
  }
  __device__ __forceinline__ bool done() const { return row_ >= row_end_; }
  __device__ __forceinline__ int row() const { return row_; }
  __device__ __forceinline__ int row_end() const { return min(row_ + tile_rows_, row_end_); }
  __device__ __forceinline__ int column() const { return unit_ * Cut::kUnitColumns; }
  __device__ __forceinline__ uint32_t part_units() const { return part_end_ - part_first_; }
  __device__ __forceinline__ void NextTile() { row_ += tile_rows_; }
  __device__ __forceinline__ void Next() {
    if (++unit_ == part_end_) unit_ = part_first_;
    if (unit_ == start_) NextTile();
  }

 private:
  uint32_t row_;
  uint32_t row_end_;
  uint32_t tile_rows_;
  uint32_t part_first_;
  uint32_t part_end_;
  uint32_t start_;
  uint32_t unit_;
};

// A ring whose length is known at run time. Round r of a stage ends phase r of its barriers.
struct Ring {
  uint32_t stages;
  uint32_t stage = 0;
  uint32_t round = 0;
  __device__ __forceinline__ void Next() {
    if (++stage == stages) {
      stage = 0;
      ++round;
    }
  }
};

// The copying thread. Weights may be read at once, x only when the kernels before have ended.
template <int kColumns>
__device__ __forceinline__ void Produce(const CUtensorMap& weight, const CUtensorMap& x,
                                        const Arguments& arguments, uint32_t producer,
                                        uint8_t* stages, Barriers* barriers) {
  using Shape = Config<kColumns>;
  const uint32_t weight_bytes = arguments.cut.tile_rows * ptx::kSwizzleRowBytes;
  const auto load_weight = [&](const Walk& walk, uint32_t stage) {
    uint64_t* full = &barriers[stage].full;
    ptx::BarrierArriveExpect(full, weight_bytes + Shape::kXBytes);
    ptx::TmaLoad2d(stages + stage * arguments.stage_bytes, &weight, full, walk.column(), walk.row(),
                   ptx::kEvictFirst);
  };
  const auto load_x = [&](const Walk& walk, uint32_t stage) {
    uint8_t* to = stages + stage * arguments.stage_bytes + weight_bytes;
    for (int block = 0; block < Shape::kBlocks; ++block) {
      ptx::TmaLoad2d(to + block * Shape::kBlockBytes, &x, &barriers[stage].full, walk.column(),
                     block * Shape::kBlockColumns, ptx::kEvictLast);
    }
  };

  ptx::PrefetchTensorMap(&weight);
  ptx::PrefetchTensorMap(&x);
  const DecodeMatmulKnobs& knobs = arguments.knobs;
  if (producer == 0) Stamp(arguments, 0);
  if (Shape::kCtas == 2 && knobs.delay != 0) {
    for (int i = 0; i < 4000; ++i) {
      if (*static_cast<volatile uint32_t*>(knobs.streaming) <= knobs.delay - 1) break;
      __nanosleep(20);
    }
  }
  if (producer == 0) Stamp(arguments, 1);
  Walk walk(arguments);
  Ring ring = {arguments.stages};
  const auto skip = [&](uint32_t stages_to_skip) {
    for (uint32_t i = 0; i < stages_to_skip && !walk.done(); ++i) {
      walk.Next();
      ring.Next();
    }
  };
  // The ring's first round needs no room made.
  for (skip(producer); ring.round == 0 && !walk.done(); skip(kProducers)) {
    load_weight(walk, ring.stage);
  }
  if (Shape::kCtas == 2 && knobs.delay != 0) atomicAdd(knobs.streaming, 1);
  if (knobs.trigger == 0) ptx::LetLaterKernelsStart();
  ptx::WaitForEarlierKernels();
  if (producer == 0) Stamp(arguments, 2);
  if (knobs.trigger == 1) ptx::LetLaterKernelsStart();
  Walk x_walk(arguments);
  for (uint32_t stage = 0; stage < arguments.stages && !x_walk.done(); ++stage, x_walk.Next()) {
    if (stage % kProducers == producer) load_x(x_walk, stage);
  }
  for (; !walk.done(); skip(kProducers)) {
    ptx::BarrierWait(&barriers[ring.stage].empty, (ring.round & 1) ^ 1);
    load_weight(walk, ring.stage);
    load_x(walk, ring.stage);
  }
  if (producer == 0) Stamp(arguments, 4);
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
  __device__ __forceinline__ void Store(int v, float4 value) const {
    const int columns = columns_ - 8 * v;
    Element* out = out_ + int64_t{8} * v * n_;
    if (columns > 0) {
      if (rows_ > 0) StoreOne(out, value.x + bias_low_);
      if (rows_ > 1) StoreOne(out + 8, value.z + bias_high_);
    }
    if (columns > 1) {
      if (rows_ > 0) StoreOne(out + n_, value.y + bias_low_);
      if (rows_ > 1) StoreOne(out + n_ + 8, value.w + bias_high_);
    }
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
  int columns_;  // from the thread's first on
  Element* out_;
  float bias_low_ = 0.0f;
  float bias_high_ = 0.0f;
};

// Adds the sums of a cluster's parts in their order; each CTA does and stores a share of it. The
// ring's memory holds the sums meanwhile: nothing is under way in it any more.
template <int kColumns, DecodeOutput kOutput>
__device__ __forceinline__ void AddParts(uint32_t parts, uint32_t rank, uint8_t* ring,
                                         const Sums<kColumns>& sums, const Sink<kOutput>& sink) {
  constexpr int kVectors = Config<kColumns>::kVectors;
  float4* mine = reinterpret_cast<float4*>(ring) + threadIdx.x;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) mine[v * kConsumers] = sums.vector(v);
  ptx::ClusterSync();
  const uint32_t address = ptx::SharedAddress(mine);
#pragma unroll 4
  for (int v = rank; v < kVectors; v += parts) {
    const uint32_t from = address + v * kConsumers * sizeof(float4);
    float4 piece[Cut::kPartsMax];
#pragma unroll
    for (uint32_t part = 0; part < Cut::kPartsMax; ++part) {
      piece[part] = ptx::LoadOfCluster(from, min(part, parts - 1));
    }
    float4 total = Add(piece[0], piece[1]);
#pragma unroll
    for (uint32_t part = 2; part < Cut::kPartsMax; ++part) {
      if (part < parts) total = Add(total, piece[part]);
    }
    sink.Store(v, total);
  }
  // Nobody leaves while its sums are read.
  ptx::ClusterSync();
}

// A warpgroup that multiplies: its 64 rows of each of the CTA's tiles.
template <int kColumns, DecodeOutput kOutput>
__device__ __forceinline__ void Consume(const Arguments& arguments, int warpgroups, uint8_t* stages,
                                        Barriers* barriers) {
  using Shape = Config<kColumns>;
  const int warpgroup_row = threadIdx.x / ptx::kWarpgroup * kWarpgroupRows;
  const bool is_signaller = threadIdx.x % ptx::kWarp == 0;
  const uint32_t weight_bytes = arguments.cut.tile_rows * ptx::kSwizzleRowBytes;
  ptx::WaitForEarlierKernels();
  Ring ring = {arguments.stages};
  for (Walk walk(arguments); !walk.done(); walk.NextTile()) {
    Sums<kColumns> sums = {};
    uint32_t stage_before = 0;
    for (uint32_t i = 0; i < walk.part_units(); ++i) {
      const uint8_t* stage = stages + ring.stage * arguments.stage_bytes;
      const uint64_t a = ptx::DescriptorKMajor(stage + warpgroup_row * ptx::kSwizzleRowBytes);
      const uint64_t b = ptx::DescriptorKMajor(stage + weight_bytes);
      ptx::BarrierWait(&barriers[ring.stage].full, ring.round & 1);
      ptx::WgmmaFence();
#pragma unroll
      for (int block = 0; block < Shape::kBlocks; ++block) {
#pragma unroll
        for (int step = 0; step < static_cast<int>(Cut::kUnitColumns) / 16; ++step) {
          ptx::WgmmaKMajor(sums.value[block], a + step * ptx::kStepK16,
                           b + block * (Shape::kBlockBytes >> 4) + step * ptx::kStepK16);
        }
      }
      ptx::WgmmaCommit();
      // The stage before this one has been read once its products are done.
      if (i > 0) {
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
    if (threadIdx.x == 0) Stamp(arguments, 5);
    const Sink<kOutput> sink(arguments, walk.row() + warpgroup_row, walk.row_end());
    if (arguments.cut.parts > 1) {
      ptx::NamedSync(1, warpgroups * ptx::kWarpgroup);  // the other one reads the ring no more
      AddParts<kColumns>(arguments.cut.parts, blockIdx.x % arguments.cut.parts, stages, sums, sink);
    } else {
#pragma unroll
      for (int v = 0; v < Shape::kVectors; ++v) sink.Store(v, sums.vector(v));
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
  const uint32_t address = ptx::SharedAddress(shared);
  uint8_t* stages = shared + (-address & (ptx::kSwizzleAtomBytes - 1));
  // A tile that one warpgroup can multiply needs no second.
  const int warpgroups = arguments.cut.tile_rows > kWarpgroupRows ? 2 : 1;
  if (threadIdx.x == 0) {
    for (Barriers& stage : barriers) {
      ptx::BarrierInit(&stage.full, 1);
      ptx::BarrierInit(&stage.empty, warpgroups * kWarpsOfGroup);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    const uint32_t producer = (threadIdx.x - kConsumers) / ptx::kWarp;
    if (threadIdx.x % ptx::kWarp == 0) {
      Produce<kColumns>(weight, x, arguments, producer, stages, barriers);
    }
  } else if (static_cast<int>(threadIdx.x) < warpgroups * ptx::kWarpgroup) {
    Consume<kColumns, kOutput>(arguments, warpgroups, stages, barriers);
  }
}

using Kernel = void (*)(CUtensorMap, CUtensorMap, Arguments);

// The kernels for one width, one for each output.
struct Family {
  Kernel kernels[3];
  int block_columns;
  uint32_t x_bytes;
  uint32_t ring_bytes;
};

template <int kColumns>
constexpr Family FamilyOf() {
  using Shape = Config<kColumns>;
  return {{DecodeMatmulKernel<kColumns, DecodeOutput::kBf16>,
           DecodeMatmulKernel<kColumns, DecodeOutput::kFloat>,
           DecodeMatmulKernel<kColumns, DecodeOutput::kFloatAccumulate>},
          Shape::kBlockColumns,
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
  const uint32_t weight_bytes = plan.cut.tile_rows * ptx::kSwizzleRowBytes;
  arguments.stage_bytes = weight_bytes + family.x_bytes;
  // A warpgroup reads 64 rows of the weight, also where the tile has less.
  const uint32_t warpgroups = plan.cut.tile_rows > kWarpgroupRows ? 2 : 1;
  const uint32_t read_bytes = warpgroups * kWarpgroupRows * ptx::kSwizzleRowBytes;
  const uint32_t behind = std::max(read_bytes, arguments.stage_bytes) - arguments.stage_bytes;
  arguments.stages = std::min<uint32_t>(
      kStagesMax, (family.ring_bytes - ptx::kSwizzleAtomBytes - behind) / arguments.stage_bytes);

  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {plan.cut.parts, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(plan.cut.groups * plan.cut.parts);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = family.ring_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  CudaCheck(cudaLaunchKernelEx(&config, family.kernels[static_cast<int>(output)], plan.weight,
                               x_map, arguments),
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
  plan.weight = MakeMatrixMap(weight, n, k, plan.cut.tile_rows);
  for (const Family& family : kFamilies) {
    for (const Kernel kernel : family.kernels) {
      CudaCheck(
          cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, family.ring_bytes),
          "shared memory of the decode product");
    }
  }
  return plan;
}

int DecodeMatmulClusters(int parts, int64_t rows) {
  const Family& family = FamilyFor(rows);
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(parts), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(128);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = family.ring_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  CudaCheck(cudaOccupancyMaxActiveClusters(&clusters, family.kernels[0], &config), "clusters");
  return clusters;
}

void LaunchDecodeMatmul(const DecodeMatmulPlan& plan, const void* x, int64_t rows,
                        const float* bias, void* out, DecodeOutput output, cudaStream_t stream) {
  const int64_t out_bytes = output == DecodeOutput::kBf16 ? sizeof(__nv_bfloat16) : sizeof(float);
  for (int64_t row = 0; row < rows; row += kRowsMax) {
    Arguments arguments;
    arguments.cut = plan.cut;
    arguments.n = static_cast<int>(plan.n);
    arguments.columns = static_cast<int>(std::min(rows - row, kRowsMax));
    arguments.bias = bias;
    arguments.out = static_cast<std::byte*>(out) + row * plan.n * out_bytes;
    arguments.knobs = decode_matmul_knobs;
    if (decode_matmul_knobs.trace != nullptr) decode_matmul_knobs.trace += 132 * 8;
    Launch(plan, static_cast<const __nv_bfloat16*>(x) + row * plan.k, output, arguments, stream);
  }
}

}  // namespace longhaul
