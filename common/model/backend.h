// Backend: the door to the model's operations on one device. The decoder is written once over it;
// makers: CPU, CUDA. Activations are row-major [rows, width] float32 unless the backend packs them
// itself between its own calls. All calls come from the device thread and are queued in order; a
// result may be read after Wait(Record()).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/config.h"
#include "common/model/device.h"
#include "common/model/kv_layout.h"
#include "common/model/sampling.h"
#include "common/model/weights.h"

namespace longhaul {

// Activations on the device: [rows, width] float32.
struct Tensor {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t width = 0;
};

// A weight in whatever form the backend wants it; made once by Backend::Prepare.
class PreparedWeight {
 public:
  virtual ~PreparedWeight() = default;
};

// One sequence's part of a ragged batch: `tokens` new positions, [position, position + tokens),
// whose rows in the batch start at `row`. `blocks` covers [0, position + tokens).
struct BatchSequence {
  int64_t row = 0;
  int64_t tokens = 0;
  int64_t position = 0;
  absl::Span<const BlockId> blocks;
};

// The rows of a step. Lives on the host; backends copy what they need.
struct Batch {
  std::vector<BatchSequence> sequences;
  std::vector<int32_t> tokens;  // [rows]
  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

// The pool of KV blocks, see KvLayout.
struct KvPool {
  KvLayout layout;
  int64_t blocks = 0;
  std::byte* data = nullptr;  // [layers][blocks][slab]
};

// What one sampled row needs. `output_position` keys the random draw: the position of the token to
// be sampled.
struct SampleRow {
  int64_t row = 0;  // row of the logits tensor
  const SamplingParams* params = nullptr;
  int64_t output_position = 0;
  absl::Span<const int32_t> history;  // prompt then output, for penalties; empty when none is set
  int64_t history_prompt_tokens = 0;  // how many of history are prompt
  absl::Span<const int32_t>
      banned;  // tokens that must not be chosen (end tokens before min_tokens)
};

class Backend : public Device {
 public:
  // Takes a weight over from its file. `bias` may be absent. Load time only. Several views that
  // share their input
  // ([q,k,v] or [gate,up]) are prepared as one matrix, whose output rows follow each other.
  virtual absl::StatusOr<std::unique_ptr<PreparedWeight>> Prepare(
      absl::Span<const WeightView> parts, absl::Span<const WeightView> biases) = 0;

  // out [rows, hidden] = embedding rows of `tokens`.
  virtual void Embed(Tensor out, const PreparedWeight& embedding,
                     absl::Span<const int32_t> tokens) = 0;

  // out = x / rms(x) * weight over groups of `weight`'s width (a row, or a head of it for q/k
  // norm). out may be x. Zhang & Sennrich, "Root mean square layer normalization", 2019.
  virtual void RmsNorm(Tensor out, Tensor x, const PreparedWeight& weight, float epsilon) = 0;

  // out [rows, n] = x [rows, k] W^T (+ bias); with `accumulate`, out += instead.
  virtual void MatMul(Tensor out, Tensor x, const PreparedWeight& weight, bool accumulate) = 0;

  // Rotates q and k of qkv [rows, (heads + 2 kv_heads) * head_dim] in place by the rows' positions
  // and stores k and v into the pool's `layer`. Su et al., "RoFormer", 2021.
  virtual void RopeAndStoreKv(Tensor qkv, const Batch& batch, const ModelConfig& config,
                              const KvPool& pool, int layer) = 0;

  // out [rows, heads * head_dim] = causal attention of q (in qkv) over the pool's blocks, softmax
  // scale 1/sqrt(head_dim). The new rows' own k and v are already stored.
  virtual void Attention(Tensor out, Tensor qkv, const Batch& batch, const ModelConfig& config,
                         const KvPool& pool, int layer) = 0;

  // out [rows, n] = silu(gate) * up for gate_up [rows, 2n]. Shazeer, "GLU variants improve
  // transformer", 2020.
  virtual void GatedActivation(Tensor out, Tensor gate_up) = 0;

  // Samples each row of logits [rows, vocab]. Ends with the results on the host: waits for the
  // device.
  virtual std::vector<SampledToken> Sample(Tensor logits, absl::Span<const SampleRow> rows) = 0;

  // Runs `body`, which only queues work, and may record it once under `shape_key` and replay it
  // afterwards.
  virtual void Run(uint64_t shape_key, absl::FunctionRef<void()> body) = 0;
};

}  // namespace longhaul
