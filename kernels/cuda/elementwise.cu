#include <cuda_bf16.h>

#include "common/base/check.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace longhaul {
namespace {

constexpr int kVector = 8;  // bf16 values in 16 bytes

__device__ __forceinline__ void Unpack(uint4 packed, float (&values)[kVector]) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(words[i] << 16);
    values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ uint4 Pack(const float (&values)[kVector]) {
  return {ptx::PackBf16(values[0], values[1]), ptx::PackBf16(values[2], values[3]),
          ptx::PackBf16(values[4], values[5]), ptx::PackBf16(values[6], values[7])};
}

__device__ __forceinline__ uint4 Load(const Bf16* from) {
  return *reinterpret_cast<const uint4*>(from);
}
__device__ __forceinline__ void Store(Bf16* to, uint4 value) {
  *reinterpret_cast<uint4*>(to) = value;
}

template <int kWidth>
__device__ __forceinline__ float SumOver(float value) {
#pragma unroll
  for (int step = kWidth / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, step);
  }
  return value;
}

__global__ void RotationAngles(float2* angles, const double* frequencies, const int32_t* positions,
                               int64_t rows, int pairs) {
  ptx::LetLaterKernelsStart();
  ptx::WaitForEarlierKernels();
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  for (int pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
    double sine;
    double cosine;
    sincos(positions[row] * frequencies[pair], &sine, &cosine);
    angles[row * pairs + pair] = {static_cast<float>(cosine), static_cast<float>(sine)};
  }
}

// A block a row.
__global__ void Embed(float* out, const Bf16* table, const int32_t* tokens, int64_t width) {
  ptx::LetLaterKernelsStart();
  ptx::WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const Bf16* from = table + tokens[row] * width;
  float* to = out + row * width;
  for (int64_t i = threadIdx.x * kVector; i < width; i += blockDim.x * kVector) {
    float values[kVector];
    Unpack(Load(from + i), values);
    *reinterpret_cast<float4*>(to + i) = {values[0], values[1], values[2], values[3]};
    *reinterpret_cast<float4*>(to + i + 4) = {values[4], values[5], values[6], values[7]};
  }
}

// A block a row, which stays in registers: kVectors times eight values a thread.
template <int kThreads, int kVectors>
__global__ void __launch_bounds__(kThreads)
    RmsNorm(Bf16* out, const float* x, const float* weight, int64_t width, float epsilon) {
  __shared__ float warp_sums[kThreads / ptx::kWarp];
  ptx::LetLaterKernelsStart();
  ptx::WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const float* from = x + row * width;
  float values[kVectors][kVector];
  float squares = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = (v * kThreads + threadIdx.x) * kVector;
    float4 low = {0.0f, 0.0f, 0.0f, 0.0f};
    float4 high = low;
    if (at < width) {
      low = *reinterpret_cast<const float4*>(from + at);
      high = *reinterpret_cast<const float4*>(from + at + 4);
    }
    const float loaded[kVector] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      values[v][i] = loaded[i];
      squares += loaded[i] * loaded[i];
    }
  }
  squares = SumOver<ptx::kWarp>(squares);
  if (threadIdx.x % ptx::kWarp == 0) warp_sums[threadIdx.x / ptx::kWarp] = squares;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kThreads / ptx::kWarp; ++i) total += warp_sums[i];
  const float scale = rsqrtf(total / static_cast<float>(width) + epsilon);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = (v * kThreads + threadIdx.x) * kVector;
    if (at >= width) continue;
    const float4 low = *reinterpret_cast<const float4*>(weight + at);
    const float4 high = *reinterpret_cast<const float4*>(weight + at + 4);
    const float w[kVector] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    float normed[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) normed[i] = values[v][i] * scale * w[i];
    Store(out + row * width + at, Pack(normed));
  }
}

// head_dim / 8 threads a head; blocks of whole warps.
template <int kHeadDim>
__global__ void HeadNorm(Bf16* qkv, int64_t tasks, int64_t width, int64_t column, int heads,
                         const float* weight, float epsilon) {
  constexpr int kLanes = kHeadDim / kVector;
  ptx::LetLaterKernelsStart();
  ptx::WaitForEarlierKernels();
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  // Threads past the end work on the last head, so that all take part in the sums.
  const int64_t task = min(thread / kLanes, tasks - 1);
  const int lane = static_cast<int>(thread % kLanes);
  Bf16* at = qkv + task / heads * width + column + task % heads * kHeadDim + lane * kVector;
  float values[kVector];
  Unpack(Load(at), values);
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kVector; ++i) squares += values[i] * values[i];
  const float scale = rsqrtf(SumOver<kLanes>(squares) / kHeadDim + epsilon);
#pragma unroll
  for (int i = 0; i < kVector; ++i) values[i] *= scale * weight[lane * kVector + i];
  __syncwarp();
  if (thread / kLanes < tasks) Store(at, Pack(values));
}

// A thread turns eight pairs, or moves sixteen values of v; head_dim / 16 threads a head.
template <int kHeadDim, bool kInterleaved>
__global__ void RopeAndStoreKv(RopeAndStoreKvCall call, int units) {
  constexpr int kLanes = kHeadDim / (2 * kVector);
  constexpr int kPairs = kHeadDim / 2;
  ptx::LetLaterKernelsStart();
  ptx::WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const int unit = blockIdx.y * blockDim.x + threadIdx.x;
  if (unit >= units) return;
  const int head = unit / kLanes;
  const int lane = unit % kLanes;
  const int kv_heads = call.layout.kv_heads;
  const int low_at = kInterleaved ? lane * 2 * kVector : lane * kVector;
  const int high_at = kInterleaved ? low_at + kVector : low_at + kPairs;
  Bf16* from = call.qkv + row * int64_t{call.heads + 2 * kv_heads} * kHeadDim + head * kHeadDim;
  uint4 low = Load(from + low_at);
  uint4 high = Load(from + high_at);
  if (head < call.heads + kv_heads) {
    float a[kVector];
    float b[kVector];
    Unpack(low, a);
    Unpack(high, b);
    const float4* angles =
        reinterpret_cast<const float4*>(call.angles + row * kPairs + lane * kVector);
    float cosines[kVector];
    float sines[kVector];
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) {
      const float4 two = angles[i];
      cosines[2 * i] = two.x;
      sines[2 * i] = two.y;
      cosines[2 * i + 1] = two.z;
      sines[2 * i + 1] = two.w;
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      // Pair i is (a[i], b[i]), or interleaved: elements 2i and 2i + 1 of a then b.
      float& x = kInterleaved ? (i < 4 ? a[2 * i] : b[2 * i - kVector]) : a[i];
      float& y = kInterleaved ? (i < 4 ? a[2 * i + 1] : b[2 * i + 1 - kVector]) : b[i];
      const float turned = x * cosines[i] - y * sines[i];
      y = x * sines[i] + y * cosines[i];
      x = turned;
    }
    low = Pack(a);
    high = Pack(b);
  }
  Bf16* to = from;
  if (head >= call.heads) {
    // Keys of all kv heads, then values: both lie behind the queries in the same order.
    const int64_t slot = call.slots[row];
    const int tokens = call.layout.block_tokens;
    const int64_t block = slot / tokens;
    const int64_t offset = slot % tokens;
    to = call.slabs +
         ((block * 2 * kv_heads + head - call.heads) * tokens + offset) * int64_t{kHeadDim};
  }
  Store(to + low_at, low);
  Store(to + high_at, high);
}

constexpr int Blocks(int64_t work, int64_t each) {
  return static_cast<int>((work + each - 1) / each);
}

}  // namespace

void LaunchRotationAngles(float2* angles, const double* frequencies, const int32_t* positions,
                          int64_t rows, int pairs, cudaStream_t stream) {
  LaunchOverlapping(stream, Blocks(rows, 4), dim3(32, 4), 0, "RotationAngles", RotationAngles,
                    angles, frequencies, positions, rows, pairs);
}

void LaunchEmbed(float* out, const Bf16* table, const int32_t* tokens, int64_t rows, int64_t width,
                 cudaStream_t stream) {
  LaunchOverlapping(stream, static_cast<int>(rows), 256, 0, "Embed", Embed, out, table, tokens,
                    width);
}

void LaunchRmsNorm(Bf16* out, const float* x, const float* weight, int64_t rows, int64_t width,
                   float epsilon, cudaStream_t stream) {
  LH_CHECK(width <= kRmsNormWidthMax, "a row too wide for RmsNorm");
  const int grid = static_cast<int>(rows);
  const auto launch = [&](auto kernel, int threads) {
    LaunchOverlapping(stream, grid, threads, 0, "RmsNorm", kernel, out, x, weight, width, epsilon);
  };
  if (width <= 128 * kVector) return launch(RmsNorm<128, 1>, 128);
  if (width <= 512 * kVector) return launch(RmsNorm<512, 1>, 512);
  if (width <= 512 * kVector * 2) return launch(RmsNorm<512, 2>, 512);
  launch(RmsNorm<512, 4>, 512);
}

void LaunchHeadNorm(Bf16* qkv, int64_t rows, int64_t width, int64_t column, int heads, int head_dim,
                    const float* weight, float epsilon, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const int64_t tasks = rows * heads;
  const int grid = Blocks(tasks * (head_dim / kVector), kThreads);
  LaunchOverlapping(stream, grid, kThreads, 0, "HeadNorm",
                    head_dim == 64 ? HeadNorm<64> : HeadNorm<128>, qkv, tasks, width, column, heads,
                    weight, epsilon);
}

void LaunchRopeAndStoreKv(const RopeAndStoreKvCall& call, cudaStream_t stream) {
  const int head_dim = call.layout.head_dim;
  const int units = (call.heads + 2 * call.layout.kv_heads) * (head_dim / (2 * kVector));
  const int threads = units < 192 ? Blocks(units, ptx::kWarp) * ptx::kWarp : 192;
  const dim3 grid(static_cast<int>(call.rows), Blocks(units, threads));
  const bool interleaved = call.style == RopeStyle::kInterleaved;
  auto* const kernel = head_dim == 64
                           ? (interleaved ? RopeAndStoreKv<64, true> : RopeAndStoreKv<64, false>)
                           : (interleaved ? RopeAndStoreKv<128, true> : RopeAndStoreKv<128, false>);
  LaunchOverlapping(stream, grid, threads, 0, "RopeAndStoreKv", kernel, call, units);
}

}  // namespace longhaul
