#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/slab_digest.h"

namespace longhaul {
namespace {

constexpr int kStripeWords = 8;    // of 8 bytes; an accumulator for each
constexpr int kBlockStripes = 16;  // between two scrambles
constexpr int kBlockWords = kBlockStripes * kStripeWords;
// What a block adds to the accumulators does not depend on the blocks before it. So threads take
// blocks, four threads one, two accumulators each; only the scrambles go one after the other.
constexpr int kThreads = 256;  // a slab
constexpr int kBlockThreads = kStripeWords / 2;
constexpr int kGroups = kThreads / kBlockThreads;
constexpr int kRoundBlocks = 256;  // whose sums are kept in shared memory at a time

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87ull, kPrime2 = 0xC2B2AE3D27D4EB4Full;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9ull, kPrime4 = 0x85EBCA77C2B2AE63ull;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5ull;
constexpr uint64_t kShort1 = 0x9E3779B1u, kShort2 = 0x85EBCA77u, kShort3 = 0xC2B2AE3Du;

__constant__ uint64_t kStart[kStripeWords] = {kShort3, kPrime1, kPrime2, kPrime3,
                                              kPrime4, kShort2, kPrime5, kShort1};
// The specification's default secret, as little-endian words.
constexpr int kSecretWords = 24;
__constant__ uint64_t kSecret[kSecretWords] = {
    0xbe4ba423396cfeb8ull, 0x1cad21f72c81017cull, 0xdb979083e96dd4deull, 0x1f67b3b7a4a44072ull,
    0x78e5c0cc4ee679cbull, 0x2172ffcc7dd05a82ull, 0x8e2443f7744608b8ull, 0x4c263a81e69035e0ull,
    0xcb00c391bb52283cull, 0xa32e531b8b65d088ull, 0x4ef90da297486471ull, 0xd8acdea946ef1938ull,
    0x3f349ce33f76faa8ull, 0x1d4f0bc7c7bbdcf9ull, 0x3159b4cd4be0518aull, 0x647378d9c97e9fc8ull,
    0xc3ebd33483acc5eaull, 0xeb6313faffa081c5ull, 0x49daf0b751dd0d17ull, 0x9e68d429265516d3ull,
    0xfca1477d58be162bull, 0xce31d07ad1b8f88full, 0x280416958f3acb45ull, 0x7e404bbbcafbd7afull};

// The secret's eight bytes from any byte on.
__device__ __forceinline__ uint64_t SecretAt(int byte) {
  const int shift = byte % 8 * 8;
  const uint64_t low = kSecret[byte / 8];
  return shift == 0 ? low : low >> shift | kSecret[byte / 8 + 1] << (64 - shift);
}

// What stripes add to two neighbouring accumulators.
struct Sums {
  uint64_t even = 0;
  uint64_t odd = 0;
  __device__ __forceinline__ void Add(ulonglong2 data, uint64_t even_secret, uint64_t odd_secret) {
    const uint64_t even_key = data.x ^ even_secret;
    const uint64_t odd_key = data.y ^ odd_secret;
    even += (even_key & 0xffffffffu) * (even_key >> 32) + data.y;
    odd += (odd_key & 0xffffffffu) * (odd_key >> 32) + data.x;
  }
};

// The first `stripes` of a block, in whole blocks all of them.
template <bool kWhole>
__device__ __forceinline__ Sums BlockSums(const ulonglong2* block, const uint64_t (&secrets)[17],
                                          int stripes) {
  Sums sums;
#pragma unroll
  for (int i = 0; i < kBlockStripes; ++i) {
    if (kWhole || i < stripes) sums.Add(block[i * kBlockThreads], secrets[i], secrets[i + 1]);
  }
  return sums;
}

// A thread block a slab.
__global__ void __launch_bounds__(kThreads, 2)
    SlabDigests(const ulonglong2* const* slabs, int64_t slab_words, uint64_t* digests) {
  __shared__ uint64_t block_sums[kRoundBlocks][kStripeWords];
  const int pair = threadIdx.x % kBlockThreads;
  const int group = threadIdx.x / kBlockThreads;
  const ulonglong2* const slab = slabs[blockIdx.x];
  const ulonglong2* const words = slab + pair;
  uint64_t secrets[kBlockStripes + 1];
#pragma unroll
  for (int i = 0; i <= kBlockStripes; ++i) secrets[i] = kSecret[2 * pair + i];

  // The last stripe is not counted: it is added by itself at the end.
  const int64_t stripes = slab_words / kStripeWords - 1;
  const int64_t blocks = stripes / kBlockStripes;
  const auto rest_stripes = static_cast<int>(stripes - blocks * kBlockStripes);
  const int lane = threadIdx.x % kStripeWords;
  const uint64_t scramble = kSecret[kSecretWords - kStripeWords + lane];
  uint64_t accumulator = kStart[lane];
  for (int64_t first = 0; first < blocks; first += kRoundBlocks) {
    const auto count = static_cast<int>(min(int64_t{kRoundBlocks}, blocks - first));
    for (int block = group; block < count; block += kGroups) {
      const Sums sums = BlockSums<true>(words + (first + block) * (kBlockWords / 2), secrets, 0);
      block_sums[block][2 * pair] = sums.even;
      block_sums[block][2 * pair + 1] = sums.odd;
    }
    __syncthreads();
    if (threadIdx.x < ptx::kWarp) {
#pragma unroll 8
      for (int block = 0; block < count; ++block) {
        accumulator += block_sums[block][lane];
        accumulator ^= accumulator >> 47;
        accumulator ^= scramble;
        accumulator *= kShort1;
      }
    }
    __syncthreads();
  }
  if (group == 0) {
    Sums rest = BlockSums<false>(words + blocks * (kBlockWords / 2), secrets, rest_stripes);
    rest.Add(words[slab_words / 2 - kBlockThreads], SecretAt(121 + 16 * pair),
             SecretAt(121 + 16 * pair + 8));
    block_sums[0][2 * pair] = rest.even;
    block_sums[0][2 * pair + 1] = rest.odd;
  }
  __syncthreads();
  if (threadIdx.x >= ptx::kWarp) return;
  accumulator += block_sums[0][lane];

  const uint64_t keyed = accumulator ^ SecretAt(11 + 8 * lane);
  const uint64_t other = __shfl_xor_sync(0xffffffffu, keyed, 1);
  uint64_t folded = (keyed * other) ^ __umul64hi(keyed, other);
  folded += __shfl_xor_sync(0xffffffffu, folded, 2);
  folded += __shfl_xor_sync(0xffffffffu, folded, 4);
  uint64_t digest = static_cast<uint64_t>(slab_words) * sizeof(uint64_t) * kPrime1 + folded;
  digest ^= digest >> 37;
  digest *= 0x165667919E3779F9ull;
  digest ^= digest >> 32;
  if (threadIdx.x == 0) digests[blockIdx.x] = digest;
}

__global__ void SetFlag(uint32_t* flag) {
  __threadfence_system();  // what the host reads once it sees the flag comes before it
  *static_cast<volatile uint32_t*>(flag) = 1;
}

}  // namespace

void LaunchSetFlag(uint32_t* flag, cudaStream_t stream) {
  SetFlag<<<1, 1, 0, stream>>>(flag);
  CudaCheckLaunch("SetFlag");
}

void LaunchSlabDigests(const std::byte* const* slabs, int count, int64_t slab_bytes,
                       uint64_t* digests, cudaStream_t stream) {
  LH_CHECK(slab_bytes > 240 && slab_bytes % 64 == 0, "slabs are long and whole stripes");
  if (count == 0) return;
  SlabDigests<<<count, kThreads, 0, stream>>>(reinterpret_cast<const ulonglong2* const*>(slabs),
                                              slab_bytes / static_cast<int64_t>(sizeof(uint64_t)),
                                              digests);
  CudaCheckLaunch("SlabDigests");
}

}  // namespace longhaul
