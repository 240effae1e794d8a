#include <cuda_bf16.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/decode_matmul.h"
#include "kernels/cuda/decode_matmul_feeders.cuh"
#include "kernels/cuda/decode_matmul_output.cuh"
#include "kernels/cuda/decode_matmul_shape.cuh"
#include "kernels/cuda/decode_matmul_sums.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma_narrow.cuh"

namespace longhaul {
namespace {

using namespace decode_matmul;

// A warpgroup that multiplies: a quarter of each of the worker's tiles.
template <int kColumns>
__device__ __forceinline__ void Multiply(const Work& work, uint32_t worker, uint32_t half,
                                         SharedMemory<kColumns>& shared) {
  using S = Shape<kColumns>;
  const int warpgroup = threadIdx.x / ptx::kWarpgroup;
  const bool is_signaller = threadIdx.x % ptx::kWarp == 0;
  const uint32_t quarter = half * 2 + warpgroup;
  ptx::WaitForEarlierKernels();
  ptx::Ring<S::kWeightStages> weights;
  ptx::Ring<S::kXStages> xs;
  uint32_t divided = 0;  // products, whose parity shared.divided has
  for (int i = 0; i < work.count; ++i) {
    const Product& product = work.products[i];
    const Cut cut = product.cut;
    const Run run(cut, worker);
    uint32_t unit = run.first;
    while (unit < run.end) {
      const uint32_t tile = unit / cut.tile_units;
      const uint32_t tile_first = tile * cut.tile_units;
      const uint32_t segment_first = unit;
      const uint32_t segment_end = min(run.end, tile_first + cut.tile_units);
      Sums<kColumns> sums = {};
      uint32_t weight_before = 0;
      uint32_t x_before = 0;
      const auto free = [&] {
        if (!is_signaller) return;
        ptx::BarrierArrive(&shared.weight_empty[weight_before]);
        ptx::BarrierArrive(&shared.x_empty[x_before]);
      };
      for (; unit < segment_end; ++unit) {
        const uint64_t a = ptx::DescriptorKMajor(
            shared.weights[weights.stage] + warpgroup * kWarpgroupRows * ptx::kSwizzleRowBytes);
        ptx::BarrierWait(&shared.weight_full[weights.stage], weights.parity);
        ptx::BarrierWait(&shared.x_full[xs.stage], xs.parity);
        ptx::WgmmaFence();
#pragma unroll
        for (int block = 0; block < S::kBlocks; ++block) {
          const uint64_t b = ptx::DescriptorKMajor(shared.x[xs.stage] + block * S::kBlockBytes);
#pragma unroll
          for (int step = 0; step < Cut::kUnitColumns / 16; ++step) {
            ptx::WgmmaKMajor(sums.value[block], a + step * ptx::kStepK16, b + step * ptx::kStepK16);
          }
        }
        ptx::WgmmaCommit();
        // The stages before these have been read once their products are done.
        if (unit > segment_first) {
          ptx::WgmmaWait<1>();
          free();
        }
        weight_before = weights.stage;
        x_before = xs.stage;
        weights.Next();
        xs.Next();
      }
      ptx::WgmmaWait<0>();
      free();
#pragma unroll
      for (int block = 0; block < S::kBlocks; ++block) {
#pragma unroll
        for (float& value : sums.value[block]) ptx::KeepInPlace(value);
      }

      const bool is_whole =
          segment_first == tile_first && segment_end == tile_first + cut.tile_units;
      if (!is_whole && !Exchange<kColumns>(work, cut, worker, tile, quarter,
                                           &shared.arrived_last[warpgroup], sums)) {
        continue;
      }
      if (product.square_groups > 0) ptx::BarrierWait(&shared.divided, divided % 2);
      Output<kColumns>(work, product, shared, tile * Cut::kQuarters + quarter).Store(sums);
      if (i + 1 == work.count) continue;
      ptx::FenceAsyncProxyGlobal();
      ptx::NamedSync(1 + warpgroup, ptx::kWarpgroup);
      if (threadIdx.x % ptx::kWarpgroup == 0) {
        ptx::AddRelease(work.finished + i * kCounterStride, 1);
      }
    }
    if (product.square_groups > 0) ++divided;
  }
}

// All blocks must be on the device at once, for they wait for each other. They are no more than
// fit; what came before them in the stream ends without them; and what comes after starts once all
// of them have (programmatic dependent launch). So only another kernel of this kind, of another
// stream or, under MPS, of another process, could keep some out while some of its own are: at most
// one of two such launches may be without the promise of a cooperative one, to start all blocks at
// once or none.
template <int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    DecodeMatmulKernel(const __grid_constant__ Work work) {
  extern __shared__ __align__(ptx::kSwizzleAtomBytes) std::byte memory[];
  auto& shared = *reinterpret_cast<SharedMemory<kColumns>*>(memory);
  const uint32_t worker = blockIdx.x / 2;
  const uint32_t half = blockIdx.x % 2;
  if (threadIdx.x == 0) {
    for (uint64_t& barrier : shared.weight_full) ptx::BarrierInit(&barrier, 1);
    for (uint64_t& barrier : shared.weight_empty) ptx::BarrierInit(&barrier, kConsumerWarps);
    for (uint64_t& barrier : shared.x_full) ptx::BarrierInit(&barrier, 1);
    for (uint64_t& barrier : shared.x_empty) ptx::BarrierInit(&barrier, kConsumerWarps);
    ptx::BarrierInit(&shared.divided, 1);
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  const int warp = __shfl_sync(0xffffffff, threadIdx.x / ptx::kWarp, 0);
  const bool is_first_lane = threadIdx.x % ptx::kWarp == 0;
  if (warp < kConsumerWarps) {
    Multiply<kColumns>(work, worker, half, shared);
  } else if (warp == kWeightFeeder) {
    if (is_first_lane) FeedWeights<kColumns>(work, worker, half, shared);
  } else if (warp == kXFeeder) {
    if (is_first_lane) FeedX<kColumns>(work, worker, shared);
  } else {
    ptx::WaitForEarlierKernels();
    Divide<kColumns>(work, shared);
  }
}

// The kernel for one width.
struct Variant {
  void (*kernel)(Work);
  int shared_bytes;
  int block_columns;
};

template <int kColumns>
constexpr Variant VariantOf() {
  static_assert(sizeof(SharedMemory<kColumns>) <= kSharedBytesMax);
  return {DecodeMatmulKernel<kColumns>, sizeof(SharedMemory<kColumns>),
          Shape<kColumns>::kBlockColumns};
}

const Variant kVariants[] = {VariantOf<8>(),  VariantOf<16>(),  VariantOf<32>(),
                             VariantOf<64>(), VariantOf<128>(), VariantOf<256>()};

const Variant& VariantFor(int64_t rows) {
  const Variant* variant = kVariants;
  for (int64_t columns = kColumnsMin; columns < rows; columns *= 2) ++variant;
  return *variant;
}

void Launch(const Variant& variant, uint32_t blocks, const Work& work, bool cooperatively,
            cudaStream_t stream) {
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeCooperative;
  attributes[1].val.cooperative = cooperatively ? 1 : 0;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = kThreads;
  config.dynamicSmemBytes = variant.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  CudaCheck(cudaLaunchKernelEx(&config, variant.kernel, work), "decode products");
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
  for (const Variant& variant : kVariants) {
    CudaCheck(
        cudaFuncSetAttribute(reinterpret_cast<const void*>(variant.kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, variant.shared_bytes),
        "shared memory of the decode products");
  }
  return plan;
}

int64_t DecodeMatmulPartialBytes(int multiprocessors) {
  const int64_t workers = std::max(multiprocessors / 2, 1);
  return workers * 2 * Cut::kTileRows * kRowsMax * int64_t{sizeof(float)};
}

int64_t DecodeMatmulSquareBytes(int64_t normed_n) {
  return kRowsMax * Cut::Quarters(normed_n) * int64_t{sizeof(float)};
}

int64_t DecodeMatmulCounterBytes(int64_t n) {
  return (kDecodeMatmulsMax * kCounterStride + Cut::Quarters(n)) * int64_t{sizeof(uint32_t)};
}

void LaunchDecodeMatmuls(absl::Span<const DecodeMatmul> products, int64_t rows,
                         const DecodeMatmulWorkspace& workspace, bool cooperatively,
                         cudaStream_t stream) {
  LH_CHECK(!products.empty() && products.size() <= kDecodeMatmulsMax,
           absl::StrCat(products.size(), " products"));
  for (int64_t row = 0; row < rows; row += kRowsMax) {
    Work work = {};
    work.count = static_cast<int>(products.size());
    work.rows = static_cast<int>(std::min<int64_t>(rows - row, kRowsMax));
    work.partials = workspace.partials;
    work.squares = workspace.squares;
    work.finished = workspace.counters;
    // No product waits for the last one: its counter is free.
    work.waiters = workspace.counters + (kDecodeMatmulsMax - 1) * kCounterStride;
    work.arrivals = workspace.counters + kDecodeMatmulsMax * kCounterStride;
    const Variant& variant = VariantFor(work.rows);
    uint32_t workers = 0;
    for (size_t i = 0; i < products.size(); ++i) {
      const DecodeMatmul& from = products[i];
      const DecodeMatmulPlan& plan = *from.plan;
      const auto rows_at = [&](void* base, int64_t width, int64_t bytes) {
        return static_cast<std::byte*>(base) + row * width * bytes;
      };
      const bool is_float =
          from.output == DecodeOutput::kFloat || from.output == DecodeOutput::kFloatAccumulate;
      const int64_t out_n = from.output == DecodeOutput::kGated ? plan.n / 2 : plan.n;
      Product& to = work.products[i];
      to.weight = plan.weight;
      to.x = MakeMatrixMap(static_cast<const __nv_bfloat16*>(from.x) + row * plan.k, work.rows,
                           plan.k, variant.block_columns);
      to.cut = plan.cut;
      to.n = static_cast<int>(plan.n);
      to.bias = from.bias;
      to.output = from.output;
      to.out = rows_at(from.out, out_n, is_float ? sizeof(float) : sizeof(__nv_bfloat16));
      to.norm_weight = from.norm_weight;
      if (from.normed != nullptr) {
        to.normed =
            reinterpret_cast<__nv_bfloat16*>(rows_at(from.normed, plan.n, sizeof(__nv_bfloat16)));
      }
      LH_CHECK(from.normed == nullptr || i + 1 < products.size(),
               "nothing to divide what is normed");
      to.epsilon = from.epsilon;
      if (from.divided) {
        LH_CHECK(i > 0 && from.x == products[i - 1].normed, "divided by what was not normed");
        to.square_groups = static_cast<int>(Cut::Quarters(products[i - 1].plan->n));
      }
      workers = std::max(workers, plan.cut.workers);
    }
    Launch(variant, workers * 2, work, cooperatively, stream);
  }
}

}  // namespace longhaul
