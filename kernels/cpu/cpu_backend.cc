#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/runtime/thread_pool.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/cpu_memory.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/prefill_matmul.h"
#include "kernels/cpu/work_sharing.h"
#include "kernels/rope.h"
#include "kernels/sampler.h"

namespace longhaul {
namespace {

// Rows of an elementwise operation that are worth waking another thread for.
constexpr int64_t kRowsAtOnce = 8;
// Weight rows of a decode task: some tens of kilobytes of weights.
constexpr int64_t kWeightRowsAtOnce = 64;

class CpuWeight final : public PreparedWeight {
 public:
  WeightUse use = WeightUse::kMatrix;
  std::vector<WeightView> parts;
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> bias;                         // [rows], or empty
  std::vector<float> vector;                       // kVector: the values [cols]
  mutable std::unique_ptr<PrefillMatrix> prefill;  // made at load or on first use
};

const CpuWeight& Cast(const PreparedWeight& weight) {
  return static_cast<const CpuWeight&>(weight);
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(const CpuBackendOptions& options, CpuIsa isa)
      : options_(options),
        isa_(isa),
        kernels_(KernelsFor(isa)),
        memory_(options.memory_bytes_max),
        pool_(options.threads, options.cores),
        prefill_(kernels_, pool_),
        scratch_(options.threads) {}

  std::string name() const override {
    return absl::StrCat("cpu: ", CpuName(), ", ", CpuIsaName(isa_), ", ", options_.threads,
                        options_.threads == 1 ? " thread" : " threads");
  }
  bool host_visible() const override { return true; }
  int64_t capacity_bytes() const override { return memory_.free_bytes(); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    return memory_.Allocate(bytes);
  }

  // The queue is the caller: work is done when its call returns.
  void Copy(void* to, const void* from, int64_t bytes) override { std::memcpy(to, from, bytes); }
  DeviceEvent Record() override { return 0; }
  bool IsDone(DeviceEvent event) override { return true; }
  void Wait(DeviceEvent event) override {}
  KvMemory& kv_memory() override { return HostKvMemory(); }

  int64_t activation_bytes() const override { return sizeof(float); }
  int block_tokens() const override { return kBlockTokensStep; }
  absl::Status CheckShapes(const ModelConfig& config, const KvLayout& layout) const override;
  absl::StatusOr<std::unique_ptr<PreparedWeight>> Prepare(
      WeightUse use, absl::Span<const WeightView> parts,
      absl::Span<const WeightView> biases) override;
  absl::Status BeginStep(const Batch& batch, const ModelConfig& config,
                         const KvPool& pool) override;
  void Embed(Tensor out, const PreparedWeight& embedding,
             absl::Span<const int32_t> tokens) override;
  void Clear(Tensor out) override { std::fill_n(out.data, out.rows * out.width, 0.0f); }
  void Flush() override {}
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
                                                   absl::Span<const SampleRow> rows) override;
  void Run(uint64_t shape_key, absl::FunctionRef<void()> body) override { body(); }

 private:
  // body(first row, end row, worker) over runs of rows.
  void ForRows(int64_t rows, absl::FunctionRef<void(int64_t, int64_t, int)> body) {
    ShareOut(pool_, (rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t task, int worker) {
      body(task * kRowsAtOnce, std::min(rows, (task + 1) * kRowsAtOnce), worker);
    });
  }
  // A worker's scratch memory of at least `bytes`, 64-byte aligned.
  std::byte* Scratch(int worker, int64_t bytes) {
    std::vector<std::byte>& memory = scratch_[worker];
    if (static_cast<int64_t>(memory.size()) < bytes + 64) memory.resize(bytes + 64);
    return AlignUp(memory.data());
  }
  static std::byte* AlignUp(std::byte* p) { return p + (-reinterpret_cast<uintptr_t>(p) & 63); }
  void DecodeMatMul(Tensor out, Tensor x, const CpuWeight& weight, bool accumulate);

  const CpuBackendOptions options_;
  const CpuIsa isa_;
  const CpuKernels& kernels_;
  CpuMemory memory_;
  ThreadPool pool_;
  PrefillMatMul prefill_;
  std::vector<std::vector<std::byte>> scratch_;  // by worker
  std::vector<std::byte> packed_rows_;
  std::unique_ptr<DeviceBuffer> gate_up_;  // [rows, 2 ffn_hidden] of float32, of the largest step
  AttentionPlan attention_;
  std::vector<double> rope_frequencies_;
  std::vector<float> cosines_, sines_;              // [rows][head_dim / 2] of the step
  std::vector<const BatchSequence*> row_sequence_;  // [rows]
};

absl::Status CpuBackend::CheckShapes(const ModelConfig& config, const KvLayout& layout) const {
  if (config.head_dim % kHeadDimStep != 0 || config.head_dim > kHeadDimMax) {
    return absl::InvalidArgumentError(absl::StrCat("the model's heads are ", config.head_dim,
                                                   " wide; the CPU kernels take ", "multiples of ",
                                                   kHeadDimStep, " up to ", kHeadDimMax));
  }
  if (layout.block_tokens < 1 || layout.block_tokens % kBlockTokensStep != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV blocks of ", layout.block_tokens, " tokens; use a multiple of ", kBlockTokensStep));
  }
  if (layout.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV as ", DTypeName(layout.dtype), "; the CPU kernels take BF16"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> CpuBackend::Prepare(
    WeightUse use, absl::Span<const WeightView> parts, absl::Span<const WeightView> biases) {
  auto weight = std::make_unique<CpuWeight>();
  weight->use = use;
  weight->parts.assign(parts.begin(), parts.end());
  weight->cols = parts[0].cols;
  for (const WeightView& part : parts) {
    if (!part.present() || part.cols != weight->cols) {
      return absl::InvalidArgumentError(
          absl::StrCat("weights that share an input must have its width: ", part.cols,
                       " columns beside ", weight->cols));
    }
    weight->rows += part.rows;
  }
  if (!biases.empty()) {
    LH_CHECK(biases.size() == parts.size(), "a bias for each part");
    weight->bias.resize(weight->rows);
    int64_t row = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (biases[i].present()) {
        if (biases[i].cols != parts[i].rows) {
          return absl::InvalidArgumentError(
              absl::StrCat("a bias of ", biases[i].cols, " values for ", parts[i].rows, " rows"));
        }
        kernels_.dequantize(biases[i].dtype, biases[i].data, biases[i].cols,
                            weight->bias.data() + row);
      }
      row += parts[i].rows;
    }
  }
  if (use == WeightUse::kVector) {
    weight->vector.resize(weight->cols);
    kernels_.dequantize(parts[0].dtype, parts[0].data, weight->cols, weight->vector.data());
  }
  if ((use == WeightUse::kMatrix || use == WeightUse::kGated) && options_.pack_prefill_at_load) {
    weight->prefill = prefill_.Pack(weight->parts);
  }
  return weight;
}

absl::Status CpuBackend::BeginStep(const Batch& batch, const ModelConfig& config,
                                   const KvPool& pool) {
  if (rope_frequencies_.empty()) rope_frequencies_ = RopeFrequencies(config);
  const int64_t pairs = config.head_dim / 2;
  cosines_.resize(batch.rows() * pairs);
  sines_.resize(batch.rows() * pairs);
  row_sequence_.resize(batch.rows());
  const int64_t gate_up_bytes =
      batch.rows() * 2 * config.ffn_hidden * static_cast<int64_t>(sizeof(float));
  if (gate_up_ == nullptr || gate_up_->bytes() < gate_up_bytes) {
    gate_up_ = nullptr;
    LH_ASSIGN_OR_RETURN(gate_up_, memory_.Allocate(gate_up_bytes));
  }
  for (const BatchSequence& sequence : batch.sequences) {
    for (int64_t i = 0; i < sequence.tokens; ++i) row_sequence_[sequence.row + i] = &sequence;
  }
  ForRows(batch.rows(), [&](int64_t first, int64_t end, int worker) {
    for (int64_t row = first; row < end; ++row) {
      const BatchSequence& sequence = *row_sequence_[row];
      RopeAngles(rope_frequencies_, sequence.position + row - sequence.row,
                 cosines_.data() + row * pairs, sines_.data() + row * pairs);
    }
  });
  return absl::OkStatus();
}

void CpuBackend::Embed(Tensor out, const PreparedWeight& embedding,
                       absl::Span<const int32_t> tokens) {
  const WeightView& table = Cast(embedding).parts[0];
  ForRows(out.rows, [&](int64_t first, int64_t end, int worker) {
    for (int64_t row = first; row < end; ++row) {
      const int32_t token = tokens[row];
      LH_CHECK(token >= 0 && token < table.rows,
               absl::StrCat("token ", token, " of a vocabulary of ", table.rows));
      kernels_.dequantize(table.dtype, table.Row(token), table.cols, out.data + row * out.width);
    }
  });
}

void CpuBackend::RmsNorm(Tensor out, Tensor x, const PreparedWeight& weight, float epsilon,
                         Phase phase) {
  const float* scale = Cast(weight).vector.data();
  ForRows(x.rows, [&](int64_t first, int64_t end, int worker) {
    for (int64_t row = first; row < end; ++row) {
      kernels_.rms_norm(out.data + row * out.width, x.data + row * x.width, scale, x.width,
                        epsilon);
    }
  });
}

void CpuBackend::HeadNorm(Tensor qkv, int64_t column, int heads, const PreparedWeight& weight,
                          float epsilon) {
  const int64_t head_dim = Cast(weight).cols;
  const float* scale = Cast(weight).vector.data();
  ForRows(qkv.rows, [&](int64_t first, int64_t end, int worker) {
    for (int64_t row = first; row < end; ++row) {
      for (int head = 0; head < heads; ++head) {
        float* values = qkv.data + row * qkv.width + column + head * head_dim;
        kernels_.rms_norm(values, values, scale, head_dim, epsilon);
      }
    }
  });
}

void CpuBackend::MatMul(Tensor out, Tensor x, const PreparedWeight& weight, bool accumulate,
                        Phase phase) {
  const CpuWeight& w = Cast(weight);
  LH_CHECK(x.width == w.cols && out.width == w.rows && x.rows == out.rows,
           absl::StrCat("[", x.rows, ", ", x.width, "] times the transpose of [", w.rows, ", ",
                        w.cols, "] into [", out.rows, ", ", out.width, "]"));
  if (phase == Phase::kDecode) {
    DecodeMatMul(out, x, w, accumulate);
  } else {
    LH_CHECK(w.use != WeightUse::kTable, "tables take decode rows only");
    if (w.prefill == nullptr) w.prefill = prefill_.Pack(w.parts);
    prefill_.Run(out.data, x.data, x.rows, *w.prefill, accumulate);
  }
  if (w.bias.empty()) return;
  ForRows(out.rows, [&](int64_t first, int64_t end, int worker) {
    for (int64_t row = first; row < end; ++row) {
      kernels_.add(out.data + row * out.width, w.bias.data(), out.width);
    }
  });
}

void CpuBackend::DecodeMatMul(Tensor out, Tensor x, const CpuWeight& w, bool accumulate) {
  int64_t part_first = 0;
  for (size_t i = 0; i < w.parts.size();) {
    // Neighbouring parts of one type share the packed activations.
    const DType dtype = w.parts[i].dtype;
    const int64_t packed_bytes = kernels_.packed_row_bytes(dtype, x.width);
    if (static_cast<int64_t>(packed_rows_.size()) < x.rows * packed_bytes + 64) {
      packed_rows_.resize(x.rows * packed_bytes + 64);
    }
    std::byte* packed = AlignUp(packed_rows_.data());
    ForRows(x.rows, [&](int64_t first, int64_t end, int worker) {
      for (int64_t row = first; row < end; ++row) {
        kernels_.pack_row(dtype, x.data + row * x.width, x.width, packed + row * packed_bytes);
      }
    });
    struct Piece {
      WeightRows rows;
      int64_t column;
    };
    std::vector<Piece> pieces;
    for (; i < w.parts.size() && w.parts[i].dtype == dtype; ++i) {
      const WeightView& part = w.parts[i];
      WeightRows rows{part.data, part.stride(), part.cols, 0, 0, dtype};
      for (; rows.first < part.rows; rows.first = rows.end) {
        rows.end = std::min(part.rows, rows.first + kWeightRowsAtOnce);
        pieces.push_back({rows, part_first});
      }
      part_first += part.rows;
    }
    ShareOut(pool_, static_cast<int64_t>(pieces.size()), [&](int64_t task, int worker) {
      const Piece& piece = pieces[task];
      kernels_.dot_rows(piece.rows, packed, x.rows, out.data + piece.column, out.width, accumulate,
                        reinterpret_cast<float*>(Scratch(worker, x.width * 4 + 256)));
    });
  }
}

void CpuBackend::RopeAndStoreKv(Tensor qkv, const Batch& batch, const ModelConfig& config,
                                const KvPool& pool, int layer) {
  const KvLayout& layout = pool.layout;
  const int dim = config.head_dim;
  const int pairs = dim / 2;
  const bool interleaved = config.rope_style == RopeStyle::kInterleaved;
  ForRows(batch.rows(), [&](int64_t first, int64_t end, int worker) {
    for (int64_t row = first; row < end; ++row) {
      const BatchSequence& sequence = *row_sequence_[row];
      const int64_t position = sequence.position + row - sequence.row;
      float* head = qkv.data + row * qkv.width;
      for (int i = 0; i < config.heads + config.kv_heads; ++i) {
        kernels_.rotate(head + i * dim, cosines_.data() + row * pairs, sines_.data() + row * pairs,
                        pairs, interleaved);
      }
      const BlockId block = sequence.blocks[position / layout.block_tokens];
      LH_CHECK(block >= 0 && block < pool.blocks,
               absl::StrCat("block ", block, " of a pool of ", pool.blocks));
      uint16_t* slab =
          reinterpret_cast<uint16_t*>(pool.data + layout.SlabOffset(pool.blocks, layer, block));
      const int64_t offset = position % layout.block_tokens;
      // Keys of all kv heads, then values: both lie behind the queries in the same order.
      const float* from = head + config.heads * dim;
      for (int i = 0; i < 2 * config.kv_heads; ++i) {
        kernels_.round_to_bf16(slab + (int64_t{i} * layout.block_tokens + offset) * dim,
                               from + i * dim, dim);
      }
    }
  });
}

void CpuBackend::Attention(Tensor out, Tensor qkv, const Batch& batch, const ModelConfig& config,
                           const KvPool& pool, int layer, Phase phase) {
  attention_.Bind(kernels_, batch, config, pool, layer, qkv, out);
  if (phase == Phase::kPrefill) {
    attention_.PlanPrefill();
    const int64_t scratch_bytes =
        kernels_.prefill_scratch_bytes(config.heads / config.kv_heads, config.head_dim);
    ShareOut(pool_, attention_.tasks(), [&](int64_t task, int worker) {
      attention_.RunPrefill(task, Scratch(worker, scratch_bytes));
    });
    return;
  }
  attention_.PlanDecode();
  ShareOut(pool_, attention_.tasks(), [&](int64_t task, int worker) {
    attention_.RunDecode(task, Scratch(worker, attention_.decode_scratch_bytes()));
  });
  ForRows(batch.decode_rows(), [&](int64_t first, int64_t end, int worker) {
    for (int64_t row = first; row < end; ++row) attention_.MergeDecode(row);
  });
}

void CpuBackend::GatedMatMul(Tensor out, Tensor x, const PreparedWeight& weight, Phase phase) {
  const Tensor gate_up = {reinterpret_cast<float*>(gate_up_->data()), out.rows, 2 * out.width};
  MatMul(gate_up, x, weight, false, phase);
  ForRows(out.rows, [&](int64_t first, int64_t end, int worker) {
    for (int64_t row = first; row < end; ++row) {
      const float* gate = gate_up.data + row * gate_up.width;
      kernels_.gated(out.data + row * out.width, gate, gate + out.width, out.width);
    }
  });
}

std::vector<absl::StatusOr<SampledToken>> CpuBackend::Sample(Tensor logits,
                                                             absl::Span<const SampleRow> rows) {
  std::vector<absl::StatusOr<SampledToken>> sampled(rows.size());
  ShareOut(pool_, static_cast<int64_t>(rows.size()), [&](int64_t i, int worker) {
    const float* row = logits.data + rows[i].row * logits.width;
    sampled[i] = SampleToken(absl::MakeConstSpan(row, logits.width), rows[i]);
  });
  return sampled;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options) {
  if (options.threads < 1 || options.threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.threads, " threads asked for; use 1 to 1024"));
  }
  LH_ASSIGN_OR_RETURN(const CpuIsa detected, DetectCpuIsa());
  const CpuIsa isa = options.isa_max.value_or(detected);
  if (isa > detected) {
    return absl::FailedPreconditionError(absl::StrCat(CpuIsaName(isa), " was asked for, but ",
                                                      CpuName(), " has ", CpuIsaName(detected)));
  }
  CapOneDnn(isa);
  return std::make_unique<CpuBackend>(options, isa);
}

}  // namespace longhaul
