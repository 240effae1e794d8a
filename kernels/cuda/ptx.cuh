// Hopper's own instructions, one thin function each: barriers in shared memory (mbarrier), the
// tensor copy engine (TMA), the matrix unit (wgmma), and what orders them. Device code only;
// sm_90a. NVIDIA, "PTX ISA", 9.0.
//
// Tiles in shared memory are rows of 128 bytes (64 bf16) with the 128-byte swizzle: the 16-byte
// piece p of row r lies at piece p ^ (r % 8). A tile starts on a multiple of 1,024 bytes. That is
// how TMA writes it under CU_TENSOR_MAP_SWIZZLE_128B and how wgmma reads it under the descriptors
// below.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace longhaul::ptx {

constexpr int kWarp = 32;
constexpr int kWarpgroup = 128;
constexpr int kSwizzleRowBytes = 128;    // one row of a swizzled tile
constexpr int kSwizzleAtomBytes = 1024;  // eight rows: the swizzle's period

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// --- mbarrier
// -------------------------------------------------------------------------------------

__device__ __forceinline__ void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals));
}

// --- clusters
// -------------------------------------------------------------------------------------

// All threads of all blocks of the cluster. Also orders their accesses to each other's shared
// memory.
__device__ __forceinline__ void ClusterSync() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// Arrives at the barrier that lies at the same place in block `rank` of the cluster.
__device__ __forceinline__ void BarrierArriveAt(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(rank)
      : "memory");
}

// Makes barriers that were just initialised known to the copy engine (and to a cluster).
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void BarrierArrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}

// Arrives, and makes the phase wait for `bytes` of TMA copies more.
__device__ __forceinline__ void BarrierArriveExpect(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}

__device__ __forceinline__ bool BarrierTest(uint64_t* barrier, uint32_t parity) {
  uint32_t done = 0;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(done)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
  return done != 0;
}

// Waits for the end of the phase of this parity: 0 for a barrier's first phase, then 1, 0, ...
// A wait for parity 1 of a fresh barrier returns at once.
__device__ __forceinline__ void BarrierWait(uint64_t* barrier, uint32_t parity) {
  while (!BarrierTest(barrier, parity)) {
  }
}

// A ring of stages: which one is next, and which parity of its barriers.
template <int kStages>
struct Ring {
  uint32_t stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// --- named barriers
// -------------------------------------------------------------------------------

__device__ __forceinline__ void NamedSync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void NamedArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- TMA
// ------------------------------------------------------------------------------------------

__device__ __forceinline__ void PrefetchTensorMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Cache policies of the copy engine, as CUTLASS names their encodings.
constexpr uint64_t kEvictFirst = 0x12F0000000000000ull;  // read once: weights of a decode step
constexpr uint64_t kEvictLast = 0x14F0000000000000ull;   // read again soon
constexpr uint64_t kEvictNormal = 0x1000000000000000ull;

// Copies a box of a tensor into shared memory; `barrier` counts its bytes. Coordinates are in
// elements, innermost first; what lies outside of the tensor arrives as zeros.
__device__ __forceinline__ void TmaLoad2d(void* to, const CUtensorMap* map, uint64_t* barrier,
                                          int32_t c0, int32_t c1, uint64_t policy = kEvictNormal) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(SharedAddress(to)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(c0), "r"(c1), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void TmaLoad3d(void* to, const CUtensorMap* map, uint64_t* barrier,
                                          int32_t c0, int32_t c1, int32_t c2,
                                          uint64_t policy = kEvictNormal) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(SharedAddress(to)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(c0), "r"(c1), "r"(c2), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void TmaLoad4d(void* to, const CUtensorMap* map, uint64_t* barrier,
                                          int32_t c0, int32_t c1, int32_t c2, int32_t c3,
                                          uint64_t policy = kEvictNormal) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(SharedAddress(to)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "l"(policy)
      : "memory");
}

// The same into every block of the cluster whose bit is set in `blocks`, at the same place; each
// one's own barrier counts the bytes.
__device__ __forceinline__ void TmaLoad2dMulticast(void* to, const CUtensorMap* map,
                                                   uint64_t* barrier, int32_t c0, int32_t c1,
                                                   uint16_t blocks,
                                                   uint64_t policy = kEvictNormal) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(
          SharedAddress(to)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(c0), "r"(c1), "h"(blocks), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void TmaLoad4dMulticast(void* to, const CUtensorMap* map,
                                                   uint64_t* barrier, int32_t c0, int32_t c1,
                                                   int32_t c2, int32_t c3, uint16_t blocks,
                                                   uint64_t policy = kEvictNormal) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7, %8;" ::"r"(
          SharedAddress(to)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "h"(blocks),
      "l"(policy)
      : "memory");
}

// Plain bytes (a multiple of 16, both ends 16-byte aligned) into shared memory.
__device__ __forceinline__ void BulkLoad(void* to, const void* from, uint32_t bytes,
                                         uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(SharedAddress(to)),
      "l"(from), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}

// Ordinary stores to shared memory before it are seen by wgmma and the copy engine after it. In
// each writing thread, before the barrier that lets the reader go.
__device__ __forceinline__ void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Ordinary stores to global memory before it are seen by copy engines after it, with a release and
// an acquire in between: in each writing thread before the release, in the copying thread after the
// acquire.
__device__ __forceinline__ void FenceAsyncProxyGlobal() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

// --- wgmma
// ----------------------------------------------------------------------------------------

// Before the first wgmma, and whenever registers it uses were written otherwise.
__device__ __forceinline__ void WgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending of the latest groups are under way.
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving other uses of an accumulator across the asynchronous product.
__device__ __forceinline__ void KeepInPlace(float& value) {
  asm volatile("" : "+f"(value)::"memory");
}

// Matrix descriptor of a swizzled tile whose rows (128 bytes) run along K ("K-major"): operand A
// [M, 64] or B [N, 64]. Groups of eight rows follow each other. Along K, 16 elements are 32 bytes:
// add kStepK16.
constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
constexpr uint64_t kStepK16 = 32 >> 4;
__device__ __forceinline__ uint64_t DescriptorKMajor(const void* tile) {
  const uint64_t address = SharedAddress(tile);
  return kSwizzle128 | (uint64_t{kSwizzleAtomBytes >> 4} << 32) | (uint64_t{1} << 16) |
         ((address & 0x3FFFF) >> 4);
}
// Matrix descriptor of operand B [K, N] stored as rows of K with N along the 128 bytes ("MN-major";
// values of attention): columns [64 i, 64 i + 64) are a tile of their own, `column_tile_bytes`
// after the one before. Along K, 16 rows are 2,048 bytes: add kStepRows16.
constexpr uint64_t kStepRows16 = 2048 >> 4;
__device__ __forceinline__ uint64_t DescriptorMnMajor(const void* tile,
                                                      uint32_t column_tile_bytes) {
  const uint64_t address = SharedAddress(tile);
  return kSwizzle128 | (uint64_t{kSwizzleAtomBytes >> 4} << 32) |
         (uint64_t{column_tile_bytes >> 4} << 16) | ((address & 0x3FFFF) >> 4);
}

// --- mma.sync
// -------------------------------------------------------------------------------------

// Four matrices of 8 x 8 bf16: lane l gives the address of row l % 8 of matrix l / 8, and receives
// of each matrix row l / 4, columns 2 (l % 4) and the next.
__device__ __forceinline__ void LoadMatrices(uint32_t (&matrices)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(row_address)
               : "memory");
}
// The same, each matrix transposed on the way.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&matrices)[4],
                                                       uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(row_address)
               : "memory");
}
// Transposes a matrix of 8 x 8 bf16 that a warp holds in that way.
__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t matrix) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(matrix));
  return transposed;
}
// d [16, 8] += a [16, 16] b [16, 8]. a is its quarters (rows 0-7, columns 0-7), (8-15, 0-7),
// (0-7, 8-15), (8-15, 8-15); b is its halves, transposed; lane l holds of d rows l / 4 and l / 4 +
// 8, columns 2 (l % 4) and the next.
__device__ __forceinline__ void MultiplyAddBf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Adds to a counter in global memory and returns what it was. What the block wrote before (and
// passed a barrier with this thread) is seen by who adds later, and what those who added before
// wrote is seen by the block behind its next barrier.
__device__ __forceinline__ uint32_t AddAcquireRelease(uint32_t* counter, uint32_t value) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(counter), "r"(value)
               : "memory");
  return before;
}

// Half of it each: adds after what the block wrote before (and passed a barrier with this thread);
// loads before what the thread, and who waits for it, reads after.
__device__ __forceinline__ void AddRelease(uint32_t* counter, uint32_t value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(counter), "r"(value) : "memory");
}
__device__ __forceinline__ uint32_t LoadAcquire(const uint32_t* counter) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}

// --- registers, launches
// --------------------------------------------------------------------------

template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Programmatic dependent launch: waits for the kernels before this one in the stream, whose memory
// is then visible. Nothing that they write may be read, and nothing that they read written, before
// it.
__device__ __forceinline__ void WaitForEarlierKernels() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
// Lets the next kernel's blocks start as soon as there is room for them.
__device__ __forceinline__ void LetLaterKernelsStart() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two floats as packed bf16, `low` in the low half.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

}  // namespace longhaul::ptx
