#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/slab_digest.h"

namespace longhaul {
namespace {

constexpr int kStripeWords = 8;    // of 8 bytes; an accumulator for each
constexpr int kBlockStripes = 16;  // between two scrambles
constexpr int kBlockWords = kBlockStripes * kStripeWords;
// A warp takes four stripes at once: eight threads each.
constexpr int kGroups = ptx::kWarp / kStripeWords;
constexpr int kTurns = kBlockStripes / kGroups;
constexpr int kBlocksAhead = 4;  // loaded before they are needed
constexpr int kWarps = 4;        // of a thread block

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

// What stripes add to the accumulators: this thread's to its own, and to its neighbour's.
struct Sums {
  uint64_t own = 0;
  uint64_t neighbour = 0;
  __device__ __forceinline__ void Add(uint64_t data, uint64_t secret) {
    const uint64_t key = data ^ secret;
    own += (key & 0xffffffffu) * (key >> 32);
    neighbour += data;
  }
  // Over the warp's groups; the same in each.
  __device__ __forceinline__ uint64_t Total() const {
    uint64_t total = own + __shfl_xor_sync(0xffffffffu, neighbour, 1);
#pragma unroll
    for (int step = kStripeWords; step < ptx::kWarp; step *= 2) {
      total += __shfl_xor_sync(0xffffffffu, total, step);
    }
    return total;
  }
};

// A warp a slab.
__global__ void __launch_bounds__(kWarps* ptx::kWarp)
    SlabDigests(const uint64_t* const* slabs, int count, int64_t slab_words, uint64_t* digests) {
  const int slab = blockIdx.x * kWarps + threadIdx.x / ptx::kWarp;
  if (slab >= count) return;
  const int lane = threadIdx.x % kStripeWords;
  const int group = threadIdx.x % ptx::kWarp / kStripeWords;
  const uint64_t* words = slabs[slab] + group * kStripeWords + lane;
  uint64_t secrets[kTurns];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) secrets[turn] = kSecret[group + turn * kGroups + lane];
  const uint64_t scramble = kSecret[kSecretWords - kStripeWords + lane];

  uint64_t accumulator = kStart[lane];
  // The last stripe is not counted: it is added by itself at the end.
  const int64_t stripes = slab_words / kStripeWords - 1;
  const int64_t blocks = stripes / kBlockStripes;
  uint64_t ahead[kBlocksAhead][kTurns];
  const auto load = [&](int64_t block, uint64_t(&to)[kTurns]) {
    if (block >= blocks) return;
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      to[turn] = words[block * kBlockWords + turn * kGroups * kStripeWords];
    }
  };
#pragma unroll
  for (int i = 0; i < kBlocksAhead; ++i) load(i, ahead[i]);
  for (int64_t block = 0; block < blocks; block += kBlocksAhead) {
#pragma unroll
    for (int i = 0; i < kBlocksAhead; ++i) {
      if (block + i >= blocks) break;
      Sums sums;
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) sums.Add(ahead[i][turn], secrets[turn]);
      load(block + i + kBlocksAhead, ahead[i]);
      accumulator += sums.Total();
      accumulator ^= accumulator >> 47;
      accumulator ^= scramble;
      accumulator *= kShort1;
    }
  }
  Sums rest;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int64_t stripe = blocks * kBlockStripes + turn * kGroups + group;
    if (stripe < stripes) {
      rest.Add(words[blocks * kBlockWords + turn * kGroups * kStripeWords], secrets[turn]);
    }
  }
  if (group == 0) rest.Add(words[slab_words - kStripeWords], SecretAt(121 + 8 * lane));
  accumulator += rest.Total();

  const uint64_t keyed = accumulator ^ SecretAt(11 + 8 * lane);
  const uint64_t other = __shfl_xor_sync(0xffffffffu, keyed, 1);
  uint64_t folded = (keyed * other) ^ __umul64hi(keyed, other);
  folded += __shfl_xor_sync(0xffffffffu, folded, 2);
  folded += __shfl_xor_sync(0xffffffffu, folded, 4);
  uint64_t digest = static_cast<uint64_t>(slab_words) * sizeof(uint64_t) * kPrime1 + folded;
  digest ^= digest >> 37;
  digest *= 0x165667919E3779F9ull;
  digest ^= digest >> 32;
  if (threadIdx.x % ptx::kWarp == 0) digests[slab] = digest;
}

}  // namespace

void LaunchSlabDigests(const std::byte* const* slabs, int count, int64_t slab_bytes,
                       uint64_t* digests, cudaStream_t stream) {
  LH_CHECK(slab_bytes > 240 && slab_bytes % 64 == 0, "slabs are long and whole stripes");
  SlabDigests<<<(count + kWarps - 1) / kWarps, kWarps * ptx::kWarp, 0, stream>>>(
      reinterpret_cast<const uint64_t* const*>(slabs), count,
      slab_bytes / static_cast<int64_t>(sizeof(uint64_t)), digests);
  CudaCheckLaunch("SlabDigests");
}

}  // namespace longhaul
