// XXH3 (64 bits, no seed) of many slabs at once, a thread block each: the very digest that the host
// computes (common/base/hash.h). Collet, "XXH3", the algorithm's specification for long inputs.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace longhaul {

// digests[i] = XXH3 of slabs[i] [slab_bytes], for i in [0, count). slab_bytes is a multiple of 64
// and more than 240; slabs are 16-byte aligned device memory; the two arrays may be pinned host
// memory. Any thread.
void LaunchSlabDigests(const std::byte* const* slabs, int count, int64_t slab_bytes,
                       uint64_t* digests, cudaStream_t stream);

// Sets *flag, in pinned host memory, when everything queued before it is done: whoever looks at it
// disturbs nobody who queues work, as asking CUDA does. Any thread.
void LaunchSetFlag(uint32_t* flag, cudaStream_t stream);

}  // namespace longhaul
