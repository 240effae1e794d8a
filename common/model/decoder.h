// Decoder: the transformer, written once over Backend. Llama 2/3/3.1, Qwen2 and Qwen3 differ in
// their ModelConfig only. Owned by one ModelExecutor; every call comes from the device thread.
//
// A step is one ragged Batch of prefill rows and decode rows. Prefill rows end with the last
// layer's KV: nothing after it is computed for them. Decode rows run to the end and are sampled,
// all of them.
//
// The ranks of a tensor-parallel group have a decoder each, of the rank's config and weights
// (tensor_shard.h), and run the same steps. The residual stream is the same bits on all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/backend.h"
#include "common/model/collective.h"
#include "common/model/config.h"
#include "common/model/weights.h"

namespace longhaul {

struct DecoderOptions {
  bool head = true;  // false: a process that never samples does not hold the output head
  std::function<void(int layers)> layer_prepared = nullptr;  // told while weights are prepared
  Collective* collective = nullptr;  // of a rank; null: the whole model is here
};

class Decoder {
 public:
  // Prepares every weight. `backend`, the collective and the bytes that `weights` points to must
  // outlive the decoder. Errors: InvalidArgument naming the weight whose shape contradicts the
  // config; ResourceExhausted.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(Backend& backend, ModelConfig config,
                                                         const ModelWeights& weights,
                                                         DecoderOptions options = {});

  // Called on the device thread when the work that stores the KV of `layer` has been queued, in
  // order; the KV may be read once `stored` is done. In a step without prefill rows, which nobody
  // waits for layer by layer, all calls come at its end.
  using LayerStored = absl::FunctionRef<void(int layer, DeviceEvent stored)>;

  // Runs one step. samples[i] belongs to decode row batch.prefill_rows + i; its `row` is set here.
  // Returns after the results are on the host: of a group, on rank 0; other ranks return nothing,
  // at once. Fails as a whole only when the step's memory cannot be allocated on every rank
  // (ResourceExhausted, nothing was run) or the group has ended (Aborted).
  absl::StatusOr<std::vector<absl::StatusOr<SampledToken>>> Run(const Batch& batch,
                                                                const KvPool& pool,
                                                                absl::Span<SampleRow> samples,
                                                                LayerStored layer_stored);

  const ModelConfig& config() const { return config_; }
  // Memory for the activations of a step of `rows`, of which `logits_rows` are decode rows.
  int64_t ActivationBytes(int64_t rows, int64_t logits_rows) const;

 private:
  struct Layer {
    std::unique_ptr<PreparedWeight> attention_norm, qkv, q_norm, k_norm, attention_out;
    std::unique_ptr<PreparedWeight> ffn_norm, gate_up, down;
  };
  // One kind of activation: rows of `width` elements.
  struct Activation {
    std::byte* data = nullptr;
    int64_t width = 0;
    int64_t element_bytes = 0;
    Tensor Rows(int64_t first, int64_t end) const {
      return {reinterpret_cast<float*>(data + first * width * element_bytes), end - first, width};
    }
  };
  // Activations of a step, grown to the largest one seen.
  struct Activations {
    std::unique_ptr<DeviceBuffer> memory;
    int64_t rows = 0;
    int64_t logits_rows = 0;
    Activation residual, normed, qkv, attended, gated, logits;
    Activation logits_part;  // a rank's columns of the logits
  };

  Decoder(Backend& backend, ModelConfig config, Collective* collective)
      : backend_(backend),
        config_(std::move(config)),
        collective_(collective),
        shard_(collective == nullptr ? TensorShard() : collective->shard()) {}
  // Whether this rank has the step's logits.
  bool leads() const { return shard_.rank == 0; }
  absl::Status PrepareLayer(const LayerWeights& weights);
  absl::Status Reserve(int64_t rows, int64_t logits_rows);
  // The widths of all activations but the logits, for bytes and for Reserve.
  Activations Shapes() const;
  // body(first row, end row, phase) for the rows [first, rows) of each phase that has some.
  static void ForPhases(const Batch& batch, int64_t first,
                        absl::FunctionRef<void(int64_t, int64_t, Phase)> body);
  // normed = the norm of residual.
  void Norm(const PreparedWeight& weight, const Batch& batch, int64_t first);
  // out = x W^T over rows [first, rows), each phase by its own kernels.
  void MatMul(const Activation& out, const Activation& x, const PreparedWeight& weight,
              bool accumulate, const Batch& batch, int64_t first);
  // residual += x W^T over rows [first, rows), summed over the ranks.
  void AddToResidual(const Activation& x, const PreparedWeight& weight, const Batch& batch,
                     int64_t first);
  // Queues the layers over the embedded rows, and the logits of the decode rows.
  void RunLayers(const Batch& batch, const KvPool& pool, LayerStored layer_stored);
  void FeedForward(const Layer& layer, const Batch& batch, int64_t first);
  void Logits(const Batch& batch);

  Backend& backend_;
  const ModelConfig config_;
  Collective* const collective_;
  const TensorShard shard_;
  std::unique_ptr<PreparedWeight> embedding_, final_norm_;
  std::unique_ptr<PreparedWeight> head_;  // null where it is the embedding, or nobody samples

  std::vector<Layer> layers_;
  Activations activations_;
};

}  // namespace longhaul
