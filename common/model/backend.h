// Backend: the door to the model's operations on one device. The decoder is written once over it;
// makers: CPU, CUDA. Activations are row-major [rows, width]: float32 for the residual stream and
// the logits, whatever the backend likes for what passes between its own calls (see
// activation_bytes). All calls come from the device thread and are queued in order; a result may be
// read after Wait(Record()).
//
// Which kernel computes a row is a matter of its Phase alone, never of the batch around it: a row's
// result has the same bits whatever other rows run beside it and however a prompt is cut into
// chunks. Prefill and decode workers may cut differently and still agree.
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

// Activations on the device: [rows, width], row after row. What Embed and an accumulating MatMul
// write, RmsNorm reads and Sample reads is float32; the rest has the backend's own elements.
struct Tensor {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t width = 0;
};

// What a weight is used for: kVector for norms, kMatrix for MatMul in both phases, kGated for
// GatedMatMul, kTable for a vocabulary's embedding and head (rows looked up, MatMul in kDecode
// only).
enum class WeightUse : uint8_t { kVector, kMatrix, kGated, kTable };

// A weight in whatever form the backend wants it; made once by Backend::Prepare.
class PreparedWeight {
 public:
  virtual ~PreparedWeight() = default;
};

// kPrefill: rows that only leave KV behind, many at a time: matrix-matrix kernels, which may round
// weights and activations to bf16. kDecode: rows whose next token is sampled, one a sequence:
// kernels that read the weights as the file has them.
enum class Phase : uint8_t { kPrefill, kDecode };

// One sequence's part of a ragged batch: `tokens` new positions, [position, position + tokens),
// whose rows in the batch start at `row`. `blocks` covers [0, position + tokens). kDecode: tokens
// is 1.
struct BatchSequence {
  Phase phase = Phase::kPrefill;
  int64_t row = 0;
  int64_t tokens = 0;
  int64_t position = 0;
  absl::Span<const BlockId> blocks;
};

// The rows of a step, those of kPrefill sequences before those of kDecode ones. Lives on the host;
// backends copy what they need.
struct Batch {
  std::vector<BatchSequence> sequences;
  std::vector<int32_t> tokens;  // [rows]
  int64_t prefill_rows = 0;
  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  int64_t decode_rows() const { return rows() - prefill_rows; }
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
  // Bytes of an element of the tensors that are the backend's own: normed, qkv, attended and
  // gated rows.
  virtual int64_t activation_bytes() const = 0;
  // Tokens of a KV block that suit the kernels best.
  virtual int block_tokens() const = 0;

  // Whether the kernels take the model's shapes and the pool's. Error: InvalidArgument with the
  // number and what would be valid. Asked once, before anything is prepared.
  virtual absl::Status CheckShapes(const ModelConfig& config, const KvLayout& layout) const = 0;

  // Takes a matrix [rows, cols], a norm's vector [cols] or the embedding over from its file. Load
  // time only. Several views that share their input ([q,k,v]) are prepared as one matrix, whose
  // output rows follow each other; kGated takes gate and up, of one shape. `biases` is empty or has
  // a vector for each part, absent ones allowed. The views' bytes must outlive the result. Errors:
  // InvalidArgument for shapes that do not fit together, ResourceExhausted.
  virtual absl::StatusOr<std::unique_ptr<PreparedWeight>> Prepare(
      WeightUse use, absl::Span<const WeightView> parts, absl::Span<const WeightView> biases) = 0;

  // Opens a step: `batch` and the pool's block tables hold until the next one. Backends upload
  // them, and compute the rows' rotation angles, once for all layers. Error: ResourceExhausted when
  // what the step needs beside its activations cannot be allocated; the step must not go on.
  virtual absl::Status BeginStep(const Batch& batch, const ModelConfig& config,
                                 const KvPool& pool) = 0;

  // out [rows, hidden] = embedding rows of `tokens`.
  virtual void Embed(Tensor out, const PreparedWeight& embedding,
                     absl::Span<const int32_t> tokens) = 0;

  // out [rows, width] of float32 = 0.
  virtual void Clear(Tensor out) = 0;

  // out [rows, width] = x / rms(x) * weight for x [rows, width]: only for the product that comes
  // next, which may do part of it. All rows are of one phase. Zhang & Sennrich, "Root mean square
  // layer normalization", 2019.
  virtual void RmsNorm(Tensor out, Tensor x, const PreparedWeight& weight, float epsilon,
                       Phase phase) = 0;

  // out [rows, n] = x [rows, k] W^T (+ bias); with `accumulate`, out += instead. All rows are of
  // one phase.
  virtual void MatMul(Tensor out, Tensor x, const PreparedWeight& weight, bool accumulate,
                      Phase phase) = 0;

  // out [rows, n] = silu(x Wgate^T) * (x Wup^T) for x [rows, k]. All rows are of one phase.
  // Shazeer, "GLU variants improve transformer", 2020.
  virtual void GatedMatMul(Tensor out, Tensor x, const PreparedWeight& weight, Phase phase) = 0;

  // Normalises `heads` neighbouring heads of qkv [rows, width] in place, from column `column` on:
  // each head by its own rms, times weight [head_dim] (Qwen3's q and k norms).
  virtual void HeadNorm(Tensor qkv, int64_t column, int heads, const PreparedWeight& weight,
                        float epsilon) = 0;

  // Rotates q of qkv [rows, (heads + 2 kv_heads) * head_dim] in place by the rows' positions and
  // stores rotated k, and v, into the pool's `layer`, for the batch of BeginStep. Su et al.,
  // "RoFormer", 2021.
  virtual void RopeAndStoreKv(Tensor qkv, const Batch& batch, const ModelConfig& config,
                              const KvPool& pool, int layer) = 0;

  // out [rows, heads * head_dim] = causal attention of q (in qkv) over the pool's blocks, softmax
  // scale 1/sqrt(head_dim), for the sequences of BeginStep's batch whose phase is `phase`. The new
  // rows' own k and v are already stored.
  virtual void Attention(Tensor out, Tensor qkv, const Batch& batch, const ModelConfig& config,
                         const KvPool& pool, int layer, Phase phase) = 0;

  // Samples each row of logits [rows, vocab]. Ends with the results on the host: waits for the
  // device. A row whose logits leave nothing to choose (NaN, or all banned) has an error in its
  // place: Internal or FailedPrecondition.
  virtual std::vector<absl::StatusOr<SampledToken>> Sample(Tensor logits,
                                                           absl::Span<const SampleRow> rows) = 0;

  // Whatever was asked for so far is in the device's queue: before somebody else queues work there.
  virtual void Flush() = 0;

  // Runs `body`, which only queues work, and may record it once under `shape_key` and replay it
  // afterwards, as long as step after step comes from one decoder's config and pool and no memory
  // was freed.
  virtual void Run(uint64_t shape_key, absl::FunctionRef<void()> body) = 0;
};

}  // namespace longhaul
