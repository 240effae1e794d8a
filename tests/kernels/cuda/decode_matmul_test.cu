// A decode product on a device: against float64, and bit for bit against itself in other company.
// Skips where there is no device.
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "tests/kernels/cuda/decode_matmul_world.cuh"

namespace longhaul {
namespace {

constexpr int64_t kRowsMax = 300;  // more than one launch takes

struct Shape {
  int64_t n;
  int64_t k;
};

class DecodeMatmulTest : public testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no CUDA device";
    }
    CudaCheck(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, 0),
              "multiprocessors");
  }
  int multiprocessors_ = 0;
};

// A weight with all that a product needs beside it.
class Product {
 public:
  Product(Shape shape, int multiprocessors)
      : shape_(shape),
        weight_(shape.n * shape.k),
        x_(kRowsMax * shape.k),
        bias_(shape.n),
        workspace_(multiprocessors, shape.n),
        out_((kRowsMax + 1) * shape.n) {
    Fill(weight_, kSeed + shape.n);
    Fill(x_, kSeed + 1 + shape.k);
    bias_host_.resize(shape.n);
    for (int64_t i = 0; i < shape.n; ++i) bias_host_[i] = 8 * HashedValue(kSeed + 2, i);
    bias_.Set(bias_host_);
    plan_ = PlanDecodeMatmul(weight_.data(), shape.n, shape.k, multiprocessors);
  }

  void Queue(const __nv_bfloat16* x, int64_t rows, bool with_bias, DecodeOutput output, void* out,
             cudaStream_t stream) {
    DecodeMatmul product;
    product.plan = &plan_;
    product.x = x;
    product.bias = with_bias ? bias_.data() : nullptr;
    product.output = output;
    product.out = out;
    LaunchDecodeMatmuls({&product, 1}, rows, workspace_.get(), cooperatively_, stream);
  }

  // Rows [first, first + rows) of the product with x, in 32-bit words ([rows, n] floats, or bf16
  // widened), after poison; the element behind the last must still be poisoned.
  std::vector<float> Run(int64_t first, int64_t rows, bool with_bias, DecodeOutput output) {
    const int64_t count = rows * shape_.n;
    if (output == DecodeOutput::kFloatAccumulate) {
      std::vector<float> before(count + 1);
      for (int64_t i = 0; i < count; ++i) before[i] = Before(i);
      before[count] = std::nanf("");
      out_.Set(before);
    } else {
      out_.FillBytes(0xFF);
    }
    Queue(x_.data() + first * shape_.k, rows, with_bias, output, out_.data(), nullptr);
    CudaCheck(cudaDeviceSynchronize(), "decode product");
    std::vector<float> host = out_.Host(count + 1);
    if (output == DecodeOutput::kBf16) {
      std::vector<__nv_bfloat16> narrow(count + 1);
      std::memcpy(static_cast<void*>(narrow.data()), host.data(),
                  narrow.size() * sizeof(__nv_bfloat16));
      for (int64_t i = 0; i <= count; ++i) host[i] = __bfloat162float(narrow[i]);
    }
    EXPECT_TRUE(std::isnan(host[count])) << "wrote behind the output";
    host.resize(count);
    return host;
  }

  // What kFloatAccumulate adds to.
  static float Before(int64_t i) { return 16 * HashedValue(kSeed + 3, i); }

  std::vector<double> Expected(const std::vector<int32_t>& samples, int64_t rows) {
    DeviceArray<int32_t> device_samples(samples.size());
    device_samples.Set(samples);
    DeviceArray<double> reference(rows * samples.size());
    Reference<<<(reference.count() + 127) / 128, 128>>>(weight_.data(), x_.data(), shape_.k,
                                                        device_samples.data(), samples.size(), rows,
                                                        reference.data());
    CudaCheckLaunch("Reference");
    return reference.Host(reference.count());
  }

  const std::vector<float>& bias() const { return bias_host_; }

 private:
  Shape shape_;
  DeviceArray<__nv_bfloat16> weight_;
  DeviceArray<__nv_bfloat16> x_;
  DeviceArray<float> bias_;
  Workspace workspace_;
  const bool cooperatively_ = false;
  DeviceArray<float> out_;
  std::vector<float> bias_host_;
  DecodeMatmulPlan plan_;
};

// All columns of the output where they are few, else the ends of some tiles and random ones.
std::vector<int32_t> Samples(int64_t n) {
  std::vector<int32_t> samples;
  if (n <= 1100) {
    samples.resize(n);
    std::iota(samples.begin(), samples.end(), 0);
    return samples;
  }
  for (int64_t i = 0; i < 400; ++i) {
    samples.push_back(static_cast<int32_t>((HashedValue(kSeed + 4, i) + 1) / 2 * (n - 1)));
  }
  for (const int64_t i : {int64_t{0}, int64_t{63}, int64_t{64}, int64_t{127}, int64_t{128},
                          int64_t{255}, int64_t{256}, n - 1}) {
    samples.push_back(static_cast<int32_t>(i));
  }
  return samples;
}

TEST_P(DecodeMatmulTest, AgreesWithFloat64AndWithItselfInAnyCompany) {
  const Shape shape = GetParam();
  Product product(shape, multiprocessors_);
  const std::vector<int32_t> samples = Samples(shape.n);
  const std::vector<double> expected = product.Expected(samples, kRowsMax);
  // The reference itself, against the host.
  for (size_t s = 0; s < samples.size(); s += samples.size() / 4 + 1) {
    double sum = 0;
    for (int64_t j = 0; j < shape.k; ++j) {
      sum +=
          double{__bfloat162float(
              __float2bfloat16_rn(HashedValue(kSeed + shape.n, samples[s] * shape.k + j)))} *
          __bfloat162float(__float2bfloat16_rn(HashedValue(kSeed + 1 + shape.k, 7 * shape.k + j)));
    }
    ASSERT_NEAR(expected[7 * samples.size() + s], sum, 1e-9 * shape.k);
  }

  const auto check = [&](const std::vector<float>& out, int64_t rows, bool with_bias,
                         DecodeOutput output) {
    double error = 0, norm = 0;
    for (int64_t row = 0; row < rows; ++row) {
      for (size_t s = 0; s < samples.size(); ++s) {
        const int64_t i = row * shape.n + samples[s];
        double want = expected[row * samples.size() + s];
        if (with_bias) want += product.bias()[samples[s]];
        if (output == DecodeOutput::kFloatAccumulate) want += Product::Before(i);
        error += (out[i] - want) * (out[i] - want);
        norm += want * want;
      }
    }
    const double limit = output == DecodeOutput::kBf16 ? 3.9e-3 : 3e-5;
    EXPECT_LT(std::sqrt(error / norm), limit)
        << "rows " << rows << " bias " << with_bias << " output " << static_cast<int>(output);
    for (const float value : out) ASSERT_FALSE(std::isnan(value));
  };

  const std::vector<float> all = product.Run(0, kRowsMax, false, DecodeOutput::kFloat);
  check(all, kRowsMax, false, DecodeOutput::kFloat);
  for (const int64_t rows : {1,  2,  3,  4,  5,  6,  7,  8,  9,   10,  11,  12,  13,
                             14, 15, 16, 17, 32, 33, 64, 65, 100, 128, 129, 200, 256}) {
    const std::vector<float> out = product.Run(0, rows, false, DecodeOutput::kFloat);
    EXPECT_TRUE(SameBits(out.data(), all.data(), rows * shape.n)) << rows << " rows";
  }
  for (const int64_t row : {1, 7, 8, 63, 130, 255, 256, 299}) {
    const std::vector<float> out = product.Run(row, 1, false, DecodeOutput::kFloat);
    EXPECT_TRUE(SameBits(out.data(), all.data() + row * shape.n, shape.n)) << "row " << row;
  }
  for (const int64_t rows : {1, 16, 100, 256}) {
    for (const bool with_bias : {false, true}) {
      for (const DecodeOutput output :
           {DecodeOutput::kBf16, DecodeOutput::kFloat, DecodeOutput::kFloatAccumulate}) {
        check(product.Run(0, rows, with_bias, output), rows, with_bias, output);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DecodeMatmulTest,
                         testing::Values(Shape{6144, 4096}, Shape{4096, 4096}, Shape{28672, 4096},
                                         Shape{4096, 14336}, Shape{128256, 4096}, Shape{960, 576},
                                         Shape{576, 576}, Shape{3072, 576}, Shape{576, 1536},
                                         Shape{49152, 576}, Shape{192, 64}, Shape{64, 64},
                                         Shape{1, 8}, Shape{63, 64}, Shape{100, 72},
                                         Shape{257, 200}, Shape{1000, 1000}, Shape{515, 4104}),
                         [](const testing::TestParamInfo<Shape>& info) {
                           return std::to_string(info.param.n) + "x" + std::to_string(info.param.k);
                         });

using DecodeMatmulStreamTest = DecodeMatmulTest;

TEST_P(DecodeMatmulStreamTest, RepeatsWithTheSameBits) {
  Product product(GetParam(), multiprocessors_);
  for (const int64_t rows : {1, 16, 64, 128}) {
    const std::vector<float> first = product.Run(0, rows, false, DecodeOutput::kFloat);
    for (int repeat = 0; repeat < 100; ++repeat) {
      const std::vector<float> again = product.Run(0, rows, false, DecodeOutput::kFloat);
      ASSERT_TRUE(SameBits(first.data(), again.data(), first.size())) << rows << " rows";
    }
  }
}

// Each product reads what the one before wrote, so a launch that reads early shows.
TEST_P(DecodeMatmulStreamTest, ReplayedChainEqualsOneAtATime) {
  const Shape shape = GetParam();
  ASSERT_EQ(shape.n, shape.k);
  Product product(shape, multiprocessors_);
  constexpr int kLinks = 12;  // more would overflow
  for (const int64_t rows : {1, 12, 40, 128}) {
    const int64_t count = rows * shape.n;
    std::vector<DeviceArray<__nv_bfloat16>*> values;
    for (int i = 0; i <= kLinks; ++i) values.push_back(new DeviceArray<__nv_bfloat16>(count));
    Fill(*values[0], kSeed + 5);
    DeviceArray<float> sum(count);
    cudaStream_t stream;
    CudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    const auto queue = [&](bool one_at_a_time) {
      for (int i = 0; i < kLinks; ++i) {
        product.Queue(values[i]->data(), rows, false, DecodeOutput::kBf16, values[i + 1]->data(),
                      stream);
        if (one_at_a_time) CudaCheck(cudaStreamSynchronize(stream), "link");
        product.Queue(values[i]->data(), rows, false, DecodeOutput::kFloatAccumulate, sum.data(),
                      stream);
        if (one_at_a_time) CudaCheck(cudaStreamSynchronize(stream), "link");
      }
    };
    const auto clear = [&] {
      sum.FillBytes(0);
      for (int i = 1; i <= kLinks; ++i) values[i]->FillBytes(0xFF);
      CudaCheck(cudaDeviceSynchronize(), "clear");
    };
    clear();
    queue(true);
    const std::vector<float> expected_sum = sum.Host(count);
    const std::vector<__nv_bfloat16> expected = values[kLinks]->Host(count);
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    queue(false);
    CudaCheck(cudaStreamEndCapture(stream, &graph), "capture");
    CudaCheck(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
    for (int repeat = 0; repeat < 20; ++repeat) {
      clear();
      CudaCheck(cudaGraphLaunch(replay, stream), "cudaGraphLaunch");
      CudaCheck(cudaStreamSynchronize(stream), "replay");
      const std::vector<__nv_bfloat16> got = values[kLinks]->Host(count);
      ASSERT_EQ(std::memcmp(got.data(), expected.data(), count * sizeof(__nv_bfloat16)), 0);
      const std::vector<float> got_sum = sum.Host(count);
      ASSERT_TRUE(SameBits(got_sum.data(), expected_sum.data(), count));
    }
    CudaCheck(cudaGraphExecDestroy(replay), "cudaGraphExecDestroy");
    CudaCheck(cudaGraphDestroy(graph), "cudaGraphDestroy");
    CudaCheck(cudaStreamDestroy(stream), "cudaStreamDestroy");
    for (DeviceArray<__nv_bfloat16>* value : values) delete value;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DecodeMatmulStreamTest,
                         testing::Values(Shape{4096, 4096}, Shape{576, 576}),
                         [](const testing::TestParamInfo<Shape>& info) {
                           return std::to_string(info.param.n) + "x" + std::to_string(info.param.k);
                         });

}  // namespace
}  // namespace longhaul
