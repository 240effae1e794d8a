#include "kernels/cuda/cuda_backend.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/model/dequantize.h"
#include "common/model/half.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_kv_memory.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/decode_chain.h"
#include "kernels/cuda/decode_matmul.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/gated_matmul.h"
#include "kernels/cuda/gpu_sampler.h"
#include "kernels/cuda/nccl_collective.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/prefill_matmul.h"
#include "kernels/cuda/step_graphs.h"
#include "kernels/cuda/step_tables.h"
#include "kernels/cuda/weight_loader.h"
#include "kernels/rope.h"

namespace longhaul {
namespace {

constexpr int kBlockTokensStep = 16;
// A block of a head is then one copy of 64 rows, and tiles of keys are whole blocks.
constexpr int kBlockTokens = 64;
constexpr int kWidthStep = 8;
// Rows that the tables of a step are made for at first.
constexpr int64_t kDecodeStepRows = 256;
constexpr int64_t kMixedStepRows = 8192;
// More would not copy faster than the bus.
constexpr long kLoadThreadsMax = 8;
// Layers of a recorded step that are launched by themselves: they run longer than it takes to
// launch the others.
constexpr int kFirstPartLayers = 2;

class CudaWeight final : public PreparedWeight {
 public:
  WeightUse use = WeightUse::kMatrix;
  int64_t rows = 0;
  int64_t cols = 0;
  std::unique_ptr<DeviceBuffer> values;  // bf16 [rows, cols]; kVector: float32 [cols]
  std::unique_ptr<DeviceBuffer> bias;    // float32 [rows], then the same as bf16; or null
  DecodeMatmulPlan decode;

  const Bf16* bf16() const { return reinterpret_cast<const Bf16*>(values->data()); }
  const float* floats() const { return reinterpret_cast<const float*>(values->data()); }
  const float* bias_floats() const {
    return bias == nullptr ? nullptr : reinterpret_cast<const float*>(bias->data());
  }
  const void* bias_bf16() const {
    return bias == nullptr ? nullptr : bias->data() + BiasFloatBytes(rows);
  }
  static int64_t BiasFloatBytes(int64_t rows) { return (rows + 3) / 4 * 16; }
};

PrefillMatmul::Shape ShapeOf(const CudaWeight& weight, bool accumulate) {
  return {
      .n = weight.rows, .k = weight.cols, .bias = weight.bias != nullptr, .accumulate = accumulate};
}

const CudaWeight& Cast(const PreparedWeight& weight) {
  return static_cast<const CudaWeight&>(weight);
}

Bf16* AsBf16(const Tensor& tensor) { return reinterpret_cast<Bf16*>(tensor.data); }

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::unique_ptr<CudaDevice> device, std::unique_ptr<PrefillMatmul> prefill_matmul,
              std::unique_ptr<CudaKvMemory> kv_memory, int load_threads)
      : device_(std::move(device)),
        prefill_matmul_(std::move(prefill_matmul)),
        kv_memory_(std::move(kv_memory)),
        loader_(*device_, load_threads),
        decode_tables_(*device_, kDecodeStepRows),
        mixed_tables_(*device_, kMixedStepRows),
        graphs_(*device_),
        chain_(*device_),
        sampler_(*device_) {}

  std::string name() const override { return device_->name(); }
  bool host_visible() const override { return false; }
  int64_t capacity_bytes() const override { return device_->capacity_bytes(); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    return device_->Allocate(bytes);
  }
  void Copy(void* to, const void* from, int64_t bytes) override {
    chain_.Flush();
    device_->Copy(to, from, bytes);
  }
  DeviceEvent Record() override {
    chain_.Flush();
    return device_->Record();
  }
  bool IsDone(DeviceEvent event) override { return device_->IsDone(event); }
  void Wait(DeviceEvent event) override { device_->Wait(event); }
  KvMemory& kv_memory() override { return *kv_memory_; }

  int64_t activation_bytes() const override { return sizeof(Bf16); }
  int block_tokens() const override { return kBlockTokens; }
  absl::Status CheckShapes(const ModelConfig& config, const KvLayout& layout) const override;
  absl::StatusOr<std::unique_ptr<PreparedWeight>> Prepare(
      WeightUse use, absl::Span<const WeightView> parts,
      absl::Span<const WeightView> biases) override;
  absl::Status BeginStep(const Batch& batch, const ModelConfig& config,
                         const KvPool& pool) override;
  void Embed(Tensor out, const PreparedWeight& embedding,
             absl::Span<const int32_t> tokens) override;
  void Clear(Tensor out) override;
  void Flush() override { chain_.Flush(); }
  void RmsNorm(Tensor out, Tensor x, const PreparedWeight& weight, float epsilon,
               Phase phase) override;
  void HeadNorm(Tensor qkv, int64_t column, int heads, const PreparedWeight& weight,
                float epsilon) override;
  void MatMul(Tensor out, Tensor x, const PreparedWeight& weight, bool accumulate,
              Phase phase) override;
  void GatedMatMul(Tensor out, Tensor x, const PreparedWeight& weight, Phase phase) override;
  void RopeAndStoreKv(Tensor qkv, const Batch& batch, const ModelConfig& config, const KvPool& pool,
                      int layer) override;
  void Attention(Tensor out, Tensor qkv, const Batch& batch, const ModelConfig& config,
                 const KvPool& pool, int layer, Phase phase) override;
  std::vector<absl::StatusOr<SampledToken>> Sample(Tensor logits,
                                                   absl::Span<const SampleRow> rows) override {
    chain_.Flush();
    return sampler_.Sample(logits.data, logits.width, rows);
  }
  void Run(uint64_t shape_key, absl::FunctionRef<void()> body) override {
    graphs_.Run({shape_key, step_config_, step_pool_}, [&] {
      body();
      chain_.Flush();
    });
  }

 private:
  // The stream, behind what the chain has gathered.
  cudaStream_t stream() {
    chain_.Flush();
    return device_->stream();
  }
  absl::Status PrepareBias(absl::Span<const WeightView> parts, absl::Span<const WeightView> biases,
                           CudaWeight& weight);
  absl::Status ReserveDecode(const Batch& batch, const ModelConfig& config);

  const std::unique_ptr<CudaDevice> device_;
  const std::unique_ptr<PrefillMatmul> prefill_matmul_;
  const std::unique_ptr<CudaKvMemory> kv_memory_;
  WeightLoader loader_;
  // A step of decode rows alone is small and recorded; its tables keep their place whatever other
  // steps need.
  StepTables decode_tables_, mixed_tables_;
  StepTables* tables_ = nullptr;  // of the step under way
  StepGraphs graphs_;
  DecodeChain chain_;
  GpuSampler sampler_;

  const void* step_config_ = nullptr;  // whose step is under way: keys of recordings
  const void* step_pool_ = nullptr;
  std::unique_ptr<DeviceBuffer> rope_frequencies_;  // float64 [head_dim / 2]
  const void* rope_config_ = nullptr;               // whose they are, and frees() then
  uint64_t rope_frees_ = 0;
  CUtensorMap kv_map_;
  KvPool mapped_pool_;  // whose kv_map_ is

  std::unique_ptr<DeviceBuffer> attention_memory_;
  DecodeScratch attention_scratch_;
  int64_t attention_rows_ = 0;
  int64_t attention_slots_ = 0;
  std::array<int, 2> attention_heads_ = {};  // query heads, their width
};

absl::Status CudaBackend::CheckShapes(const ModelConfig& config, const KvLayout& layout) const {
  if (config.head_dim != 64 && config.head_dim != 128) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model's heads are ", config.head_dim,
                     " wide; the CUDA kernels take 64 and 128: use --backend=cpu"));
  }
  if (layout.block_tokens < 1 || layout.block_tokens % kBlockTokensStep != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV blocks of ", layout.block_tokens, " tokens; use a multiple of ", kBlockTokensStep));
  }
  if (layout.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV as ", DTypeName(layout.dtype), "; the CUDA kernels take BF16"));
  }
  for (const int width : {config.hidden, config.ffn_hidden}) {
    if (width % kWidthStep != 0) {
      return absl::InvalidArgumentError(absl::StrCat("the model has rows of ", width,
                                                     " values; the CUDA kernels take multiples of ",
                                                     kWidthStep));
    }
  }
  if (config.hidden > kRmsNormWidthMax) {
    return absl::InvalidArgumentError(absl::StrCat("the model's residual stream is ", config.hidden,
                                                   " wide; the CUDA kernels take up to ",
                                                   kRmsNormWidthMax));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> CudaBackend::Prepare(
    WeightUse use, absl::Span<const WeightView> parts, absl::Span<const WeightView> biases) {
  auto weight = std::make_unique<CudaWeight>();
  weight->use = use;
  weight->cols = parts[0].cols;
  for (const WeightView& part : parts) {
    if (!part.present() || part.cols != weight->cols) {
      return absl::InvalidArgumentError(
          absl::StrCat("weights that share an input must have its width: ", part.cols,
                       " columns beside ", weight->cols));
    }
    weight->rows += part.rows;
  }
  if (use == WeightUse::kVector) {
    std::vector<float> values(weight->cols);
    DequantizeRow(parts[0], 0, values.data());
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
    LH_ASSIGN_OR_RETURN(weight->values, device_->Allocate(bytes));
    device_->Copy(weight->values->data(), values.data(), bytes);
    return weight;
  }
  LH_ASSIGN_OR_RETURN(weight->values, device_->Allocate(weight->rows * weight->cols *
                                                        static_cast<int64_t>(sizeof(Bf16))));
  if (use == WeightUse::kGated &&
      (parts.size() != 2 || parts[0].rows != parts[1].rows || parts[0].rows % kGatedRows != 0)) {
    return absl::InvalidArgumentError(absl::StrCat("gate and up are one shape of a multiple of ",
                                                   kGatedRows, " rows; these have ", weight->rows,
                                                   " rows in ", parts.size(), " parts"));
  }
  LH_RETURN_IF_ERROR(loader_.Load(parts, use == WeightUse::kGated ? kGatedRows : weight->rows,
                                  reinterpret_cast<Bf16*>(weight->values->data())));
  LH_CHECK(use != WeightUse::kGated || biases.empty(), "gate and up have no bias");
  if (!biases.empty()) LH_RETURN_IF_ERROR(PrepareBias(parts, biases, *weight));
  weight->decode = PlanDecodeMatmul(weight->values->data(), weight->rows, weight->cols,
                                    device_->multiprocessors());
  LH_RETURN_IF_ERROR(chain_.Reserve(weight->rows));
  if (use == WeightUse::kMatrix) {
    for (const bool accumulate : {false, true}) {
      prefill_matmul_->Tune(ShapeOf(*weight, accumulate), weight->values->data(),
                            weight->bias_bf16());
    }
  }
  return weight;
}

absl::Status CudaBackend::PrepareBias(absl::Span<const WeightView> parts,
                                      absl::Span<const WeightView> biases, CudaWeight& weight) {
  LH_CHECK(biases.size() == parts.size(), "a bias for each part");
  const int64_t float_bytes = CudaWeight::BiasFloatBytes(weight.rows);
  std::vector<std::byte> host(float_bytes + weight.rows * sizeof(Bf16));
  auto* floats = reinterpret_cast<float*>(host.data());
  auto* rounded = reinterpret_cast<Bf16*>(host.data() + float_bytes);
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); row += parts[i].rows, ++i) {
    if (!biases[i].present()) continue;
    if (biases[i].cols != parts[i].rows) {
      return absl::InvalidArgumentError(
          absl::StrCat("a bias of ", biases[i].cols, " values for ", parts[i].rows, " rows"));
    }
    DequantizeRow(biases[i], 0, floats + row);
  }
  for (int64_t i = 0; i < weight.rows; ++i) {
    rounded[i] = BF16FromF32(floats[i]);
    floats[i] = F32FromBF16(rounded[i]);
  }
  const auto bytes = static_cast<int64_t>(host.size());
  LH_ASSIGN_OR_RETURN(weight.bias, device_->Allocate(bytes));
  device_->Copy(weight.bias->data(), host.data(), bytes);
  return absl::OkStatus();
}

absl::Status CudaBackend::BeginStep(const Batch& batch, const ModelConfig& config,
                                    const KvPool& pool) {
  device_->Bind();
  // A config's address is its own as long as no memory was freed: a decoder has some.
  if (rope_config_ != &config || rope_frees_ != device_->frees()) {
    const std::vector<double> frequencies = RopeFrequencies(config);
    const auto bytes = static_cast<int64_t>(frequencies.size() * sizeof(double));
    rope_config_ = nullptr;
    LH_ASSIGN_OR_RETURN(rope_frequencies_, device_->Allocate(bytes));
    device_->Copy(rope_frequencies_->data(), frequencies.data(), bytes);
    rope_config_ = &config;
    rope_frees_ = device_->frees();
  }
  if (pool.data != mapped_pool_.data || pool.blocks != mapped_pool_.blocks ||
      !(pool.layout == mapped_pool_.layout)) {
    kv_map_ = MakeDecodeKvMap(pool.data, pool.layout, pool.blocks);
    mapped_pool_ = pool;
  }
  step_config_ = &config;
  step_pool_ = pool.data;
  tables_ = batch.prefill_rows == 0 ? &decode_tables_ : &mixed_tables_;
  LH_RETURN_IF_ERROR(tables_->Upload(batch, config, pool));
  if (batch.decode_rows() > 0) LH_RETURN_IF_ERROR(ReserveDecode(batch, config));
  LaunchRotationAngles(tables_->angles(),
                       reinterpret_cast<const double*>(rope_frequencies_->data()),
                       tables_->positions(), batch.rows(), config.head_dim / 2, stream());
  return absl::OkStatus();
}

absl::Status CudaBackend::ReserveDecode(const Batch& batch, const ModelConfig& config) {
  const int64_t rows = batch.decode_rows();
  const int64_t slots = tables_->decode_slots();
  const std::array<int, 2> heads = {config.heads, config.head_dim};
  if (attention_memory_ != nullptr && rows <= attention_rows_ && slots <= attention_slots_ &&
      heads == attention_heads_) {
    return absl::OkStatus();
  }
  const auto grown = [](int64_t capacity, int64_t needed, int64_t least) {
    return needed <= capacity ? capacity : std::max({needed, 2 * capacity, least});
  };
  const int64_t next_rows = grown(attention_rows_, rows, kDecodeStepRows);
  const int64_t next_slots = grown(attention_slots_, slots, 2 * kDecodeStepRows);
  const DecodeScratchLayout layout(next_rows, next_slots, config.heads, config.head_dim);
  attention_memory_ = nullptr;
  LH_ASSIGN_OR_RETURN(attention_memory_, device_->Allocate(layout.bytes()));
  CudaCheck(cudaMemsetAsync(attention_memory_->data(), 0, layout.counter_bytes(), stream()),
            "cudaMemsetAsync");
  attention_scratch_ = layout.At(attention_memory_->data());
  attention_rows_ = next_rows;
  attention_slots_ = next_slots;
  attention_heads_ = heads;
  return absl::OkStatus();
}

void CudaBackend::Embed(Tensor out, const PreparedWeight& embedding,
                        absl::Span<const int32_t> tokens) {
  const CudaWeight& table = Cast(embedding);
  for (const int32_t token : tokens) {
    LH_CHECK(token >= 0 && token < table.rows,
             absl::StrCat("token ", token, " of a vocabulary of ", table.rows));
  }
  // BeginStep has uploaded them.
  LaunchEmbed(out.data, table.bf16(), tables_->tokens(), out.rows, out.width, stream());
}

void CudaBackend::Clear(Tensor out) {
  CudaCheck(cudaMemsetAsync(out.data, 0, out.rows * out.width * sizeof(float), stream()),
            "cudaMemsetAsync");
}

void CudaBackend::RmsNorm(Tensor out, Tensor x, const PreparedWeight& weight, float epsilon,
                          Phase phase) {
  const float* values = Cast(weight).floats();
  if (phase == Phase::kDecode) {
    return chain_.RmsNorm(out.data, x.data, values, x.rows, x.width, epsilon);
  }
  LaunchRmsNorm(AsBf16(out), x.data, values, x.rows, x.width, epsilon, device_->stream());
}

void CudaBackend::HeadNorm(Tensor qkv, int64_t column, int heads, const PreparedWeight& weight,
                           float epsilon) {
  LaunchHeadNorm(AsBf16(qkv), qkv.rows, qkv.width, column, heads,
                 static_cast<int>(Cast(weight).cols), Cast(weight).floats(), epsilon, stream());
}

void CudaBackend::MatMul(Tensor out, Tensor x, const PreparedWeight& weight, bool accumulate,
                         Phase phase) {
  const CudaWeight& w = Cast(weight);
  LH_CHECK(x.width == w.cols && out.width == w.rows && x.rows == out.rows,
           absl::StrCat("[", x.rows, ", ", x.width, "] times the transpose of [", w.rows, ", ",
                        w.cols, "] into [", out.rows, ", ", out.width, "]"));
  if (phase == Phase::kPrefill) {
    LH_CHECK(w.use == WeightUse::kMatrix, "tables take decode rows only");
    prefill_matmul_->Run(ShapeOf(w, accumulate), w.values->data(), x.data, x.rows, w.bias_bf16(),
                         out.data);
    return;
  }
  DecodeMatmul product;
  product.plan = &w.decode;
  product.x = x.data;
  product.bias = w.bias_floats();
  product.output = accumulate                   ? DecodeOutput::kFloatAccumulate
                   : w.use == WeightUse::kTable ? DecodeOutput::kFloat
                                                : DecodeOutput::kBf16;
  product.out = out.data;
  chain_.MatMul(product, x.rows);
}

void CudaBackend::RopeAndStoreKv(Tensor qkv, const Batch& batch, const ModelConfig& config,
                                 const KvPool& pool, int layer) {
  RopeAndStoreKvCall call;
  call.qkv = AsBf16(qkv);
  call.rows = qkv.rows;
  call.heads = config.heads;
  call.layout = pool.layout;
  call.style = config.rope_style;
  call.slabs = reinterpret_cast<Bf16*>(pool.data + pool.layout.SlabOffset(pool.blocks, layer, 0));
  call.angles = tables_->angles();
  call.slots = tables_->slots();
  LaunchRopeAndStoreKv(call, stream());
}

void CudaBackend::Attention(Tensor out, Tensor qkv, const Batch& batch, const ModelConfig& config,
                            const KvPool& pool, int layer, Phase phase) {
  if (phase == Phase::kPrefill) {
    PrefillAttentionCall call;
    call.qkv = qkv.data;
    call.rows = qkv.rows;
    call.width = qkv.width;
    call.heads = config.heads;
    call.pool = pool;
    call.layer = layer;
    call.keys = tables_->prefill_keys();
    call.out = out.data;
    call.items = tables_->prefill_items();
    call.item_count = tables_->prefill_item_count();
    call.block_tables = tables_->block_tables();
    LaunchPrefillAttention(call, stream());
    return;
  }
  DecodeAttentionParams params;
  params.kv = kv_map_;
  params.layout = pool.layout;
  params.pool_blocks = pool.blocks;
  params.layer = layer;
  params.heads = config.heads;
  params.qkv = AsBf16(qkv) + batch.prefill_rows * qkv.width;
  params.qkv_stride = qkv.width;
  params.out = AsBf16(out) + batch.prefill_rows * out.width;
  params.out_stride = out.width;
  params.block_tables = tables_->block_tables();
  params.items = tables_->decode_items();
  params.item_count = tables_->decode_item_count();
  params.scratch = attention_scratch_;
  params.processors = device_->multiprocessors();
  LaunchDecodeAttention(params, stream());
  if (layer + 1 == kFirstPartLayers) graphs_.Cut();
}

void CudaBackend::GatedMatMul(Tensor out, Tensor x, const PreparedWeight& weight, Phase phase) {
  const CudaWeight& w = Cast(weight);
  LH_CHECK(w.use == WeightUse::kGated && x.width == w.cols && 2 * out.width == w.rows &&
               x.rows == out.rows,
           absl::StrCat("[", x.rows, ", ", x.width, "] times the transposes of [", w.rows, ", ",
                        w.cols, "] into [", out.rows, ", ", out.width, "]"));
  if (phase == Phase::kPrefill) {
    GatedMatmulCall call;
    call.weight = w.bf16();
    call.n = w.rows;
    call.k = w.cols;
    call.x = AsBf16(x);
    call.rows = x.rows;
    call.out = AsBf16(out);
    call.multiprocessors = device_->multiprocessors();
    LaunchGatedMatmul(call, ChooseGatedTiling(call.rows, call.n, call.multiprocessors),
                      device_->stream());
    return;
  }
  DecodeMatmul product;
  product.plan = &w.decode;
  product.x = x.data;
  product.output = DecodeOutput::kGated;
  product.out = out.data;
  chain_.MatMul(product, x.rows);
}

absl::StatusOr<std::unique_ptr<CudaBackend>> MakeBackend(const CudaBackendOptions& options,
                                                         std::unique_ptr<CudaDevice> device) {
  if (options.load_threads < 0 || options.load_threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.load_threads, " threads asked for; use 1 to 1024"));
  }
  const int load_threads =
      options.load_threads > 0
          ? options.load_threads
          : static_cast<int>(std::clamp(sysconf(_SC_NPROCESSORS_ONLN), 1L, kLoadThreadsMax));
  LH_ASSIGN_OR_RETURN(auto prefill_matmul, PrefillMatmul::Make(*device));
  LH_ASSIGN_OR_RETURN(auto kv_memory, CudaKvMemory::Make(*device));
  return std::make_unique<CudaBackend>(std::move(device), std::move(prefill_matmul),
                                       std::move(kv_memory), load_threads);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options) {
  LH_ASSIGN_OR_RETURN(auto device, CudaDevice::Open(options.device, options.memory_share));
  return MakeBackend(options, std::move(device));
}

absl::StatusOr<std::vector<BackendRank>> MakeCudaRanks(const CudaBackendOptions& options,
                                                       absl::Span<const int> devices) {
  std::vector<BackendRank> ranks;
  std::vector<CudaDevice*> opened;
  for (const int device : devices) {
    LH_ASSIGN_OR_RETURN(auto made, CudaDevice::Open(device, options.memory_share));
    opened.push_back(made.get());
    LH_ASSIGN_OR_RETURN(ranks.emplace_back().backend, MakeBackend(options, std::move(made)));
  }
  LH_RETURN_IF_ERROR(JoinDevices(opened));
  LH_ASSIGN_OR_RETURN(auto collectives, MakeNcclCollectives(opened));
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i].collective = std::move(collectives[i]);
  return ranks;
}

}  // namespace longhaul
