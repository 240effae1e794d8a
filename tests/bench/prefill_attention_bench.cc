// Prefill attention on the GPU, Llama-3-8B's heads (32 query, 8 key/value heads of 128): TFLOP/s of
// whole prompts and of a chunk over a long context. Beside it the rate of cuBLAS's bf16 product in
// the same process, the practical ceiling. tests/bench/torch_attention.py gives PyTorch's figures
// for the same work.
//
// Counted are the operations that a causal mask leaves: 4 x head_dim x heads x the pairs of a row
// and a position up to its own.
#include <cublas_v2.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>

#include "common/base/check.h"
#include "kernels/cuda/prefill_attention.h"
#include "tests/kernels/cuda/device_array.h"

namespace longhaul {
namespace {

constexpr int kHeads = 32;
constexpr int kKvHeads = 8;
constexpr int kDim = 128;

// Random bf16 of about unit size, made on the host once and repeated: content matters to power,
// order does not.
std::vector<uint16_t> RandomBf16(int64_t size) {
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(size);
  const int64_t fresh = std::min<int64_t>(size, 1 << 22);
  for (int64_t i = 0; i < size; ++i) {
    if (i < fresh) {
      const float value = normal(random);
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      values[i] = static_cast<uint16_t>(bits >> 16);
    } else {
      values[i] = values[(i * 7919) % fresh];
    }
  }
  return values;
}

// Median milliseconds of `queue`, by events.
template <typename Queue>
double MedianMs(Queue queue, int repeats) {
  cudaEvent_t begin, end;
  CudaCheck(cudaEventCreate(&begin), "cudaEventCreate");
  CudaCheck(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int i = 0; i < repeats + 3; ++i) {
    CudaCheck(cudaEventRecord(begin), "cudaEventRecord");
    queue();
    CudaCheck(cudaEventRecord(end), "cudaEventRecord");
    CudaCheck(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    CudaCheck(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (i >= 3) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double MatrixCeiling() {
  constexpr int kSize = 8192;
  const std::vector<uint16_t> values = RandomBf16(int64_t{kSize} * kSize);
  const DeviceArray<uint16_t> a(values), b(values);
  DeviceArray<uint16_t> c(int64_t{kSize} * kSize);
  cublasHandle_t handle;
  LH_CHECK(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cublasCreate");
  const float one = 1.0f;
  const float zero = 0.0f;
  const double ms = MedianMs(
      [&] {
        LH_CHECK(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, kSize, kSize, kSize, &one, a.data(),
                              CUDA_R_16BF, kSize, b.data(), CUDA_R_16BF, kSize, &zero, c.data(),
                              CUDA_R_16BF, kSize, CUBLAS_COMPUTE_32F,
                              CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS,
                 "cublasGemmEx");
      },
      10);
  cublasDestroy(handle);
  return 2.0 * kSize * kSize * kSize / ms / 1e9;
}

void Measure(int64_t position, int64_t tokens, int block_tokens, int repeats) {
  KvPool pool;
  pool.layout = {.layers = 1, .kv_heads = kKvHeads, .head_dim = kDim, .block_tokens = block_tokens};
  pool.blocks = pool.layout.BlocksFor(position + tokens);
  const int64_t width = int64_t{kHeads + 2 * kKvHeads} * kDim;
  const DeviceArray<uint16_t> cache(RandomBf16(pool.blocks * pool.layout.slab_elements()));
  pool.data = reinterpret_cast<std::byte*>(cache.data());
  std::vector<BlockId> blocks(pool.blocks);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), std::mt19937_64(2));
  const DeviceArray<uint16_t> qkv(RandomBf16(tokens * width));
  const DeviceArray<uint16_t> out(tokens * kHeads * kDim);
  Batch batch;
  batch.sequences = {
      {.phase = Phase::kPrefill, .row = 0, .tokens = tokens, .position = position, .blocks = {}}};
  const PrefillAttentionPlan plan = PlanPrefillAttention(batch, {0});
  const DeviceArray<PrefillAttentionItem> device_items(plan.items);
  const DeviceArray<int32_t> tables(blocks);
  PrefillAttentionCall call;
  call.qkv = qkv.data();
  call.rows = tokens;
  call.width = width;
  call.heads = kHeads;
  call.pool = pool;
  call.keys = plan.keys;
  call.out = out.data();
  call.items = device_items.data();
  call.item_count = static_cast<int32_t>(plan.items.size());
  call.block_tables = tables.data();
  const double ms = MedianMs([&] { LaunchPrefillAttention(call, nullptr); }, repeats);
  const double pairs = static_cast<double>(tokens) * position + 0.5 * tokens * (tokens + 1.0);
  std::printf("prefill_attention tokens=%ld position=%ld block=%d ms=%.3f TFLOP/s=%.1f\n", tokens,
              position, block_tokens, ms, 4.0 * kDim * kHeads * pairs / ms / 1e9);
}

}  // namespace
}  // namespace longhaul

// Without arguments: the usual shapes. With TOKENS POSITION: that one.
int main(int argc, char** argv) {
  using namespace longhaul;
  if (CudaDevices() == 0) {
    std::fprintf(stderr, "error: no CUDA device\n");
    return 1;
  }
  constexpr int kBlockTokens = 64;
  constexpr int kRepeats = 15;
  if (argc == 3) {
    Measure(std::atoll(argv[2]), std::atoll(argv[1]), kBlockTokens, kRepeats);
    return 0;
  }
  std::printf("cublas bf16 8192^3 TFLOP/s=%.1f\n", MatrixCeiling());
  for (const int64_t tokens : {2048, 8192, 16384, 32768})
    Measure(0, tokens, kBlockTokens, kRepeats);
  for (const int block_tokens : {16, 128}) Measure(0, 16384, block_tokens, kRepeats);
  Measure(129 * 1024 - 2048, 2048, kBlockTokens, kRepeats);
  Measure(131072 - 512, 512, kBlockTokens, kRepeats);
  return 0;
}
