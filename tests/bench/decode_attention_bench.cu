// Decode attention's speed beside the GPU's read bandwidth, measured in the same run: bytes of keys
// and values over the time of one launch, launches in a graph that walks over layers, so that no
// launch finds its KV in the cache.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>

#include "tests/kernels/cuda/decode_world.cuh"

namespace longhaul {
namespace {

constexpr int kLayers = 4;
constexpr int kLaunches = 8;  // in a graph
constexpr int kWarmUps = 5;
constexpr int kReplays = 15;

// Median in microseconds of one replay of what `queue` queues. All replays are queued before the
// first has ended, so that none waits for the host.
double GraphMicroseconds(const std::function<void(cudaStream_t)>& queue) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  CudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  queue(stream);
  CudaCheck(cudaStreamEndCapture(stream, &graph), "capture");
  CudaCheck(cudaGraphInstantiate(&replay, graph, 0), "graph");
  cudaEvent_t ends[kReplays + 1];
  for (cudaEvent_t& end : ends) CudaCheck(cudaEventCreate(&end), "event");
  for (int i = 0; i < kWarmUps; ++i) CudaCheck(cudaGraphLaunch(replay, stream), "warm-up");
  for (cudaEvent_t& end : ends) {
    CudaCheck(cudaGraphLaunch(replay, stream), "replay");
    CudaCheck(cudaEventRecord(end, stream), "event");
  }
  CudaCheck(cudaStreamSynchronize(stream), "replays");
  std::vector<double> times;
  for (int i = 0; i < kReplays; ++i) {
    float ms = 0.0f;
    CudaCheck(cudaEventElapsedTime(&ms, ends[i], ends[i + 1]), "time");
    times.push_back(ms * 1e3);
  }
  for (cudaEvent_t& end : ends) CudaCheck(cudaEventDestroy(end), "event");
  CudaCheck(cudaGraphExecDestroy(replay), "graph");
  CudaCheck(cudaGraphDestroy(graph), "graph");
  CudaCheck(cudaStreamDestroy(stream), "stream");
  std::nth_element(times.begin(), times.begin() + kReplays / 2, times.end());
  return times[kReplays / 2];
}

// Reads everything once, sixteen bytes a thread and load, kAhead loads under way in each thread.
template <int kAhead>
__global__ void __launch_bounds__(512)
    ReadKernel(const uint4* from, int64_t count, uint32_t* sink) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  uint32_t sum = 0;
  int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + (kAhead - 1) * stride < count; i += kAhead * stride) {
    uint4 v[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) v[a] = __ldcs(from + i + a * stride);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) sum ^= v[a].x ^ v[a].y ^ v[a].z ^ v[a].w;
  }
  for (; i < count; i += stride) sum ^= from[i].x;
  if (sum == 0x12345678) *sink = sum;  // keeps the loads
}

// TB/s of the best of a few plain read kernels.
double ReadCeiling(const void* memory, int64_t bytes, int processors, uint32_t* sink) {
  double best = 0.0;
  for (const int blocks : {1, 2, 4}) {
    const double four = GraphMicroseconds([&](cudaStream_t stream) {
      ReadKernel<4><<<processors * blocks, 512, 0, stream>>>(static_cast<const uint4*>(memory),
                                                             bytes / 16, sink);
    });
    const double eight = GraphMicroseconds([&](cudaStream_t stream) {
      ReadKernel<8><<<processors * blocks, 512, 0, stream>>>(static_cast<const uint4*>(memory),
                                                             bytes / 16, sink);
    });
    best = std::max(best, bytes / std::min(four, eight) * 1e-6);
  }
  return best;
}

struct Mix {
  const char* name;
  std::vector<int32_t> keys;
  double bar;  // of the read bandwidth; 0: none
};

std::vector<int32_t> Lengths(int rows_a, int keys_a, int rows_b = 0, int keys_b = 0) {
  std::vector<int32_t> keys(rows_a, keys_a);
  keys.insert(keys.end(), rows_b, keys_b);
  return keys;
}

// Every row in as many runs as all others, whatever its length: what a grid of (row, kv head,
// split) does.
DecodeSchedule StaticSplit(const std::vector<DecodeRow>& rows, int splits) {
  DecodeSchedule planned, schedule;
  PlanDecode(rows, &planned);
  for (DecodeItem item : planned.items) {
    const int parts = DecodeParts(item.keys);
    const int run = (parts + splits - 1) / splits;
    if (item.first_part % run != 0) continue;
    item.parts = std::min(run, parts - item.first_part);
    schedule.items.push_back(item);
  }
  std::stable_sort(schedule.items.begin(), schedule.items.end(),
                   [](const DecodeItem& a, const DecodeItem& b) { return a.row < b.row; });
  return schedule;
}

double LaunchMicroseconds(const DecodeWorld& world) {
  DecodeAttentionParams params = world.Params();
  return GraphMicroseconds([&](cudaStream_t stream) {
           for (int launch = 0; launch < kLaunches; ++launch) {
             params.layer = launch % kLayers;
             LaunchDecodeAttention(params, stream);
           }
         }) /
         kLaunches;
}

void PrintPlanning(const std::vector<DecodeRow>& rows) {
  DecodeSchedule schedule;
  std::vector<double> times;
  for (int i = 0; i < 21; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    PlanDecode(rows, &schedule);
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
            .count());
  }
  std::sort(times.begin(), times.end());
  std::printf("planning %zu rows, %zu items: %.1f us\n", rows.size(), schedule.items.size(),
              times[10]);
}

void Run() {
  std::mt19937_64 random(1);
  std::vector<DecodeRow> rows(256);
  for (DecodeRow& row : rows) row.keys = static_cast<int32_t>(random() % 16384) + 1;
  PrintPlanning(rows);
  const Mix mixes[] = {
      {"32 x 8K", Lengths(32, 8192), 0.92},
      {"1 x 128K", Lengths(1, 131072), 0.85},
      {"128 x 1K", Lengths(128, 1024), 0.80},
      {"1 x 128K + 31 x 4K", Lengths(1, 131072, 31, 4096), 0.90},
      {"64 x 2K", Lengths(64, 2048), 0},
      {"8 x 128K", Lengths(8, 131072), 0},
      {"2 x 64K + 62 x 1K", Lengths(2, 65536, 62, 1024), 0},
      {"1 x 8K", Lengths(1, 8192), 0},
      {"1 x 1K", Lengths(1, 1024), 0},
  };
  double ceiling = 0.0;
  for (const Mix& mix : mixes) {
    DecodeWorldOptions options;
    options.layout = {.layers = kLayers, .kv_heads = 8, .head_dim = 128, .block_tokens = 64};
    options.heads = 32;
    options.keys = mix.keys;
    options.all_layers = true;
    DecodeWorld world(options);
    const int processors = world.Params().processors;
    if (ceiling == 0.0) {
      DeviceArray<uint32_t> sink(1);
      ceiling = ReadCeiling(world.pool.data(), world.pool.size() * 2, processors, sink.data());
      std::printf("read ceiling %.3f TB/s\n%-20s %9s %7s %6s %5s\n", ceiling, "", "us", "TB/s",
                  "share", "bar");
    }
    double bytes = 0.0;
    for (const int32_t keys : mix.keys) bytes += keys * 8.0 * 128 * 2 * 2;
    const double us = LaunchMicroseconds(world);
    std::printf("%-20s %9.1f %7.3f %6.3f %5.2f\n", mix.name, us, bytes / us * 1e-6,
                bytes / us * 1e-6 / ceiling, mix.bar);
    if (mix.keys.front() == mix.keys.back()) continue;
    for (const int splits : {1, 8}) {
      world.SetSchedule(StaticSplit(world.plan_rows, splits));
      const double fixed = LaunchMicroseconds(world);
      std::printf("  in %d static split%s %9.1f: %.2f x as long\n", splits, splits > 1 ? "s" : " ",
                  fixed, fixed / us);
    }
  }
}

}  // namespace
}  // namespace longhaul

int main() {
  if (longhaul::CudaDevices() == 0) {
    std::fprintf(stderr, "error: no CUDA device\n");
    return 1;
  }
  longhaul::Run();
  return 0;
}
