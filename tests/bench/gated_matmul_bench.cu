// Times gate, up and their activation for prefill rows of Llama-3-8B's shape in every tiling,
// beside cuBLAS's product alone. In turns, in rounds; medians. Once in short rounds with pauses, as
// short prompts come, and once in long ones, in which the device's power limit lowers its clock.
//   gated_matmul_bench [rows]...            without arguments: 512 2048 8192
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/gated_matmul.h"
#include "kernels/cuda/prefill_matmul.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/cuda/hashed_bf16.cuh"

namespace longhaul {
namespace {

constexpr int64_t kN = 28672;
constexpr int64_t kK = 4096;
constexpr int kRounds = 7;
// Taken in turns: together larger than the L2 cache.
constexpr int kWeights = 2;

struct Pace {
  const char* name;
  double round_flops;
  std::chrono::milliseconds pause;
};
constexpr Pace kPaces[] = {{"short rounds", 2e12, std::chrono::milliseconds(8)},
                           {"long rounds", 40e12, std::chrono::milliseconds(0)}};

void Fill(const DeviceArray<Bf16>& array, uint64_t seed) {
  FillHashed<<<2048, 256>>>(reinterpret_cast<__nv_bfloat16*>(array.data()), array.size(), seed);
  CudaCheckLaunch("FillHashed");
}

class Bench {
 public:
  Bench(CudaDevice& device, int64_t rows_max)
      : device_(device),
        cublas_(PrefillMatmul::Make(device).value()),
        x_(rows_max * kK),
        gate_up_(rows_max * kN),
        out_(rows_max * kN / 2) {
    Fill(x_, 1);
    for (int i = 0; i < kWeights; ++i) {
      weights_.push_back(std::make_unique<DeviceArray<Bf16>>(kN * kK));
      Fill(*weights_.back(), 2 + i);
    }
    cublas_->Tune(kShape, weights_[0]->data(), nullptr);
    CudaCheck(cudaEventCreate(&begin_), "cudaEventCreate");
    CudaCheck(cudaEventCreate(&end_), "cudaEventCreate");
  }

  void Run(int64_t rows) {
    struct Way {
      std::string name;
      std::function<void(const Bf16*)> queue;
    };
    std::vector<Way> ways;
    ways.push_back({"cuBLAS, no activation", [&](const Bf16* weight) {
                      cublas_->Run(kShape, weight, x_.data(), rows, nullptr, gate_up_.data());
                    }});
    for (const GatedTiling& tiling : kGatedTilings) {
      const bool chosen = tiling == ChooseGatedTiling(rows, kN, device_.multiprocessors());
      ways.push_back({"128 x " + std::to_string(tiling.columns) + ", clusters of " +
                          std::to_string(tiling.cluster) + (chosen ? " *" : ""),
                      [&, tiling](const Bf16* weight) {
                        GatedMatmulCall call;
                        call.weight = weight;
                        call.n = kN;
                        call.k = kK;
                        call.x = x_.data();
                        call.rows = rows;
                        call.out = out_.data();
                        call.multiprocessors = device_.multiprocessors();
                        LaunchGatedMatmul(call, tiling, device_.stream());
                      }});
    }
    const double flops = 2.0 * kN * kK * static_cast<double>(rows);
    for (const Pace& pace : kPaces) {
      std::printf("%lld rows, %s\n", static_cast<long long>(rows), pace.name);
      const int calls = std::max(1, static_cast<int>(pace.round_flops / flops));
      std::vector<std::vector<double>> us(ways.size());
      // The first round warms up.
      for (int round = -1; round < kRounds; ++round) {
        for (size_t way = 0; way < ways.size(); ++way) {
          std::this_thread::sleep_for(pace.pause);
          CudaCheck(cudaEventRecord(begin_, device_.stream()), "cudaEventRecord");
          for (int i = 0; i < calls; ++i) ways[way].queue(weights_[i % kWeights]->data());
          CudaCheck(cudaEventRecord(end_, device_.stream()), "cudaEventRecord");
          CudaCheck(cudaEventSynchronize(end_), "product");
          float ms = 0;
          CudaCheck(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
          if (round >= 0) us[way].push_back(ms * 1e3 / calls);
        }
      }
      for (size_t way = 0; way < ways.size(); ++way) {
        std::sort(us[way].begin(), us[way].end());
        const double median = us[way][kRounds / 2];
        std::printf("  %-26s %8.1f us  %6.1f TFLOP/s (%.1f to %.1f us)\n", ways[way].name.c_str(),
                    median, flops / median / 1e6, us[way].front(), us[way].back());
      }
      std::fflush(stdout);
    }
  }

 private:
  static constexpr PrefillMatmul::Shape kShape = {kN, kK};

  CudaDevice& device_;
  const std::unique_ptr<PrefillMatmul> cublas_;
  DeviceArray<Bf16> x_, gate_up_, out_;
  std::vector<std::unique_ptr<DeviceArray<Bf16>>> weights_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::StatusOr<std::unique_ptr<longhaul::CudaDevice>> device = longhaul::CudaDevice::Open(0, 0.9);
  if (!device.ok()) {
    std::fprintf(stderr, "error: %s\n", device.status().ToString().c_str());
    return 1;
  }
  std::vector<int64_t> rows;
  for (int i = 1; i < argc; ++i) rows.push_back(std::atoll(argv[i]));
  if (rows.empty()) rows = {512, 2048, 8192};
  longhaul::Bench bench(**device, *std::max_element(rows.begin(), rows.end()));
  for (const int64_t each : rows) bench.Run(each);
}
