// The decode products of a layer, one after another in one launch: each against float64, and all
// bit for bit against themselves in other company. Skips where there is no device.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "tests/kernels/cuda/decode_matmul_world.cuh"

namespace longhaul {
namespace {

// What a layer does between two attentions, its products in one launch.
struct LayerShape {
  int64_t attended;  // width
  int64_t hidden;
  int64_t ffn;
  int multiprocessors;  // that it is cut for; 0: the device's
};

class Layer {
 public:
  Layer(LayerShape shape, int64_t rows, uint64_t seed, bool cooperatively = false)
      : shape_(shape),
        rows_(rows),
        attended(rows * shape.attended),
        residual(rows * shape.hidden),
        normed(rows * shape.hidden),
        gated(rows * shape.ffn),
        later_residual(rows * shape.hidden),
        later_normed(rows * shape.hidden),
        next(rows * shape.attended),
        norm_weight(shape.hidden),
        bias(shape.attended),
        workspace_(shape.multiprocessors, std::max({shape.attended, shape.hidden, 2 * shape.ffn})),
        cooperatively_(cooperatively) {
    const struct {
      int64_t n, k;
    } shapes[] = {{shape.hidden, shape.attended},
                  {2 * shape.ffn, shape.hidden},
                  {shape.hidden, shape.ffn},
                  {shape.attended, shape.hidden}};
    for (int i = 0; i < 4; ++i) {
      weights[i] = std::make_unique<DeviceArray<__nv_bfloat16>>(shapes[i].n * shapes[i].k);
      Fill(*weights[i], seed + i);
      plans_[i] =
          PlanDecodeMatmul(weights[i]->data(), shapes[i].n, shapes[i].k, shape.multiprocessors);
    }
    norm_weight.Set(Hashed(shape.hidden, seed + 5));
    bias.Set(Hashed(shape.attended, seed + 6));
    Reset(seed);
  }

  void Reset(uint64_t seed) {
    Fill(attended, seed + 7);
    before = Hashed(rows_ * shape_.hidden, seed + 8);
    residual.Set(before);
    later_residual.Set(before);
    for (DeviceArray<__nv_bfloat16>* written : {&normed, &gated, &later_normed, &next}) {
      written->FillBytes(0xFF);
    }
    CudaCheck(cudaDeviceSynchronize(), "reset");
  }

  // Of `rows` rows from `first` on.
  void Queue(int64_t first, int64_t rows, cudaStream_t stream) {
    DecodeMatmul products[4];
    for (int i = 0; i < 4; ++i) products[i].plan = &plans_[i];
    products[0].x = attended.data() + first * shape_.attended;
    products[0].output = DecodeOutput::kFloatAccumulate;
    products[0].out = residual.data() + first * shape_.hidden;
    products[0].norm_weight = norm_weight.data();
    products[0].normed = normed.data() + first * shape_.hidden;
    products[1].x = products[0].normed;
    products[1].divided = true;
    products[1].epsilon = kEpsilon;
    products[1].output = DecodeOutput::kGated;
    products[1].out = gated.data() + first * shape_.ffn;
    products[2].x = products[1].out;
    products[2].output = DecodeOutput::kFloatAccumulate;
    products[2].out = later_residual.data() + first * shape_.hidden;
    products[2].norm_weight = norm_weight.data();
    products[2].normed = later_normed.data() + first * shape_.hidden;
    products[3].x = products[2].normed;
    products[3].divided = true;
    products[3].epsilon = kEpsilon;
    products[3].bias = bias.data();
    products[3].out = next.data() + first * shape_.attended;
    LaunchDecodeMatmuls(products, rows, workspace_.get(), cooperatively_, stream);
  }

  static std::vector<float> Hashed(int64_t count, uint64_t seed) {
    std::vector<float> values(count);
    for (int64_t i = 0; i < count; ++i) values[i] = HashedValue(seed, i);
    return values;
  }

  static constexpr float kEpsilon = 1e-5f;

 private:
  LayerShape shape_;
  int64_t rows_;

 public:
  DeviceArray<__nv_bfloat16> attended;
  DeviceArray<float> residual;
  DeviceArray<__nv_bfloat16> normed, gated;
  DeviceArray<float> later_residual;
  DeviceArray<__nv_bfloat16> later_normed, next;
  DeviceArray<float> norm_weight, bias;
  std::unique_ptr<DeviceArray<__nv_bfloat16>> weights[4];
  std::vector<float> before;

 private:
  DecodeMatmulPlan plans_[4];
  Workspace workspace_;
  const bool cooperatively_;
};

std::vector<double> Doubles(const DeviceArray<__nv_bfloat16>& array) {
  const std::vector<__nv_bfloat16> host = array.Host(array.count());
  std::vector<double> values(host.size());
  for (size_t i = 0; i < host.size(); ++i) values[i] = __bfloat162float(host[i]);
  return values;
}

std::vector<double> Doubles(const DeviceArray<float>& array) {
  const std::vector<float> host = array.Host(array.count());
  return {host.begin(), host.end()};
}

// All of x W^T in float64.
std::vector<double> AllOf(const DeviceArray<__nv_bfloat16>& weight,
                          const DeviceArray<__nv_bfloat16>& x, int64_t rows) {
  const int64_t k = x.count() / rows;
  std::vector<int32_t> samples(weight.count() / k);
  std::iota(samples.begin(), samples.end(), 0);
  DeviceArray<int32_t> device_samples(samples.size());
  device_samples.Set(samples);
  DeviceArray<double> reference(rows * samples.size());
  Reference<<<(reference.count() + 127) / 128, 128>>>(
      weight.data(), x.data(), k, device_samples.data(), samples.size(), rows, reference.data());
  CudaCheckLaunch("Reference");
  return reference.Host(reference.count());
}

double RelativeError(const std::vector<double>& got, const std::vector<double>& want) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i])) return got[i];
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

class DecodeChainTest : public testing::TestWithParam<LayerShape> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no CUDA device";
    }
    shape_ = GetParam();
    if (shape_.multiprocessors == 0) {
      CudaCheck(cudaDeviceGetAttribute(&shape_.multiprocessors, cudaDevAttrMultiProcessorCount, 0),
                "multiprocessors");
    }
  }
  LayerShape shape_;
};

// Each product's result from what the device had before it.
TEST_P(DecodeChainTest, AgreesWithFloat64) {
  constexpr double kFloat = 3e-5;
  constexpr double kBf16 = 3.9e-3;
  for (const int64_t rows : {1, 3, 16, 17, 40, 128, 250}) {
    if (rows > 40 && shape_.hidden > 1000) continue;  // the reference takes its time
    Layer layer(shape_, rows, kSeed + rows);
    layer.Queue(0, rows, nullptr);
    CudaCheck(cudaDeviceSynchronize(), "layer");
    const std::vector<double> norm_weight = Doubles(layer.norm_weight);
    const auto normed_of = [&](std::vector<double> residual) {
      for (size_t i = 0; i < residual.size(); ++i) residual[i] *= norm_weight[i % shape_.hidden];
      return residual;
    };
    const auto divide = [&](std::vector<double>& values, const std::vector<double>& residual) {
      const int64_t width = values.size() / rows;
      for (int64_t row = 0; row < rows; ++row) {
        double squares = 0;
        for (int64_t i = 0; i < shape_.hidden; ++i) {
          squares += std::pow(residual[row * shape_.hidden + i], 2);
        }
        const double rms = std::sqrt(squares / shape_.hidden + Layer::kEpsilon);
        for (int64_t i = 0; i < width; ++i) values[row * width + i] /= rms;
      }
    };
    const auto accumulated = [&](std::vector<double> sums) {
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += layer.before[i];
      return sums;
    };

    const std::vector<double> residual = Doubles(layer.residual);
    EXPECT_LT(RelativeError(residual, accumulated(AllOf(*layer.weights[0], layer.attended, rows))),
              kFloat);
    EXPECT_LT(RelativeError(Doubles(layer.normed), normed_of(residual)), kBf16);

    std::vector<double> gate_up = AllOf(*layer.weights[1], layer.normed, rows);
    divide(gate_up, residual);
    std::vector<double> gated(rows * shape_.ffn);
    for (size_t i = 0; i < gated.size(); ++i) {
      const double gate = gate_up[i / 8 * 16 + i % 8];
      gated[i] = gate / (1 + std::exp(-gate)) * gate_up[i / 8 * 16 + i % 8 + 8];
    }
    EXPECT_LT(RelativeError(Doubles(layer.gated), gated), kBf16);

    const std::vector<double> later = Doubles(layer.later_residual);
    EXPECT_LT(RelativeError(later, accumulated(AllOf(*layer.weights[2], layer.gated, rows))),
              kFloat);
    EXPECT_LT(RelativeError(Doubles(layer.later_normed), normed_of(later)), kBf16);

    std::vector<double> next = AllOf(*layer.weights[3], layer.later_normed, rows);
    divide(next, later);
    const std::vector<double> bias = Doubles(layer.bias);
    for (size_t i = 0; i < next.size(); ++i) next[i] += bias[i % shape_.attended];
    EXPECT_LT(RelativeError(Doubles(layer.next), next), kBf16);
    if (HasFailure()) FAIL() << rows << " rows";
  }
}

TEST_P(DecodeChainTest, NeighboursChangeNoBit) {
  constexpr int64_t kRows = 300;
  Layer layer(shape_, kRows, kSeed);
  const auto bits = [&](int64_t first, int64_t rows) {
    CudaCheck(cudaDeviceSynchronize(), "layer");
    const auto next = layer.next.Host(kRows * shape_.attended);
    const auto residual = layer.later_residual.Host(kRows * shape_.hidden);
    std::string all(reinterpret_cast<const char*>(&next[first * shape_.attended]),
                    rows * shape_.attended * sizeof(next[0]));
    return all.append(reinterpret_cast<const char*>(&residual[first * shape_.hidden]),
                      rows * shape_.hidden * sizeof(residual[0]));
  };
  for (const int64_t rows : {1, 2, 9, 16, 31, 64, 100, 128, 129, 256}) {
    layer.Reset(kSeed);
    layer.Queue(0, kRows, nullptr);
    const std::string want = bits(kRows - rows, rows);
    layer.Reset(kSeed);
    layer.Queue(kRows - rows, rows, nullptr);
    ASSERT_TRUE(bits(kRows - rows, rows) == want) << rows << " rows";
  }
}

// Launches whose results are what the next ones read, again and again, against launches one by one.
TEST_P(DecodeChainTest, ReplaysAreTheSame) {
  constexpr int kLayers = 6;
  for (const int64_t rows : {1, 16, 64, 128}) {
    Layer layer(shape_, rows, kSeed + 50);
    cudaStream_t stream;
    CudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    const auto queue = [&](bool one_at_a_time) {
      for (int i = 0; i < kLayers; ++i) {
        layer.Queue(0, rows, stream);
        if (one_at_a_time) CudaCheck(cudaStreamSynchronize(stream), "layer");
        CudaCheck(
            cudaMemcpyAsync(layer.attended.data(), layer.next.data(),
                            layer.next.count() * sizeof(__nv_bfloat16), cudaMemcpyDefault, stream),
            "cudaMemcpyAsync");
        // No copy in between: a launch right after a launch.
        layer.Queue(0, rows, stream);
        if (one_at_a_time) CudaCheck(cudaStreamSynchronize(stream), "layer");
      }
    };
    const auto bits = [&] {
      CudaCheck(cudaStreamSynchronize(stream), "layers");
      const auto next = layer.next.Host(layer.next.count());
      const auto residual = layer.later_residual.Host(layer.later_residual.count());
      std::string all(reinterpret_cast<const char*>(next.data()), next.size() * sizeof(next[0]));
      return all.append(reinterpret_cast<const char*>(residual.data()),
                        residual.size() * sizeof(residual[0]));
    };
    queue(true);
    const std::string want = bits();
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    queue(false);
    CudaCheck(cudaStreamEndCapture(stream, &graph), "capture");
    CudaCheck(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
    for (int repeat = 0; repeat < 30; ++repeat) {
      layer.Reset(kSeed + 50);
      CudaCheck(cudaGraphLaunch(replay, stream), "cudaGraphLaunch");
      ASSERT_TRUE(bits() == want) << rows << " rows, replay " << repeat;
    }
    CudaCheck(cudaGraphExecDestroy(replay), "cudaGraphExecDestroy");
    CudaCheck(cudaGraphDestroy(graph), "cudaGraphDestroy");
    CudaCheck(cudaStreamDestroy(stream), "cudaStreamDestroy");
  }
}

// Two streams at a time would keep each other's blocks out, were not one of them launched
// cooperatively.
TEST_P(DecodeChainTest, TwoStreamsAtATime) {
  constexpr int kLaunches = 200;
  constexpr int64_t kRows = 5;
  Layer layers[2] = {Layer(shape_, kRows, kSeed + 60), Layer(shape_, kRows, kSeed + 60, true)};
  cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) {
    CudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  for (int i = 0; i < kLaunches; ++i) {
    for (int j = 0; j < 2; ++j) layers[j].Queue(0, kRows, streams[j]);
  }
  for (const cudaStream_t stream : streams) {
    CudaCheck(cudaStreamSynchronize(stream), "layers");
    CudaCheck(cudaStreamDestroy(stream), "cudaStreamDestroy");
  }
  const auto a = layers[0].later_residual.Host(kRows * shape_.hidden);
  const auto b = layers[1].later_residual.Host(kRows * shape_.hidden);
  EXPECT_TRUE(SameBits(a.data(), b.data(), kRows * shape_.hidden));
}

INSTANTIATE_TEST_SUITE_P(Shapes, DecodeChainTest,
                         testing::Values(LayerShape{4096, 4096, 14336, 0},
                                         LayerShape{576, 576, 1536, 0}, LayerShape{216, 72, 200, 0},
                                         LayerShape{200, 1000, 712, 9}, LayerShape{64, 64, 64, 1},
                                         LayerShape{512, 520, 1032, 1}),
                         [](const testing::TestParamInfo<LayerShape>& info) {
                           const LayerShape& shape = info.param;
                           return std::to_string(shape.attended) + "x" +
                                  std::to_string(shape.hidden) + "x" + std::to_string(shape.ffn) +
                                  "on" + std::to_string(shape.multiprocessors);
                         });

}  // namespace
}  // namespace longhaul
