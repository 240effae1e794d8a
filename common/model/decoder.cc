#include "common/model/decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

absl::Status CheckShape(absl::string_view name, const WeightView& view, int64_t rows,
                        int64_t cols) {
  if (view.present() && view.rows == rows && view.cols == cols) return absl::OkStatus();
  if (!view.present()) {
    return absl::InvalidArgumentError(absl::StrCat("the model has no weight ", name, " [", rows,
                                                   ", ", cols, "], which its config asks for"));
  }
  return absl::InvalidArgumentError(absl::StrCat("weight ", name, " is [", view.rows, ", ",
                                                 view.cols, "], the config asks for [", rows, ", ",
                                                 cols, "]"));
}

// Each buffer starts where any device likes it.
constexpr int64_t kAlignmentBytes = 256;

int64_t PaddedBytes(int64_t rows, int64_t width, int64_t element_bytes) {
  const int64_t bytes = rows * width * element_bytes;
  return (bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(Backend& backend, ModelConfig config,
                                                         const ModelWeights& weights,
                                                         DecoderOptions options) {
  if (static_cast<int>(weights.layers.size()) != config.layers) {
    return absl::InvalidArgumentError(absl::StrCat("the model has the weights of ",
                                                   weights.layers.size(),
                                                   " layers, its config says ", config.layers));
  }
  std::unique_ptr<Decoder> decoder(new Decoder(backend, std::move(config), options.collective));
  const ModelConfig& c = decoder->config_;
  LH_RETURN_IF_ERROR(CheckShape("embedding", weights.embedding, c.vocab, c.hidden));
  LH_ASSIGN_OR_RETURN(decoder->embedding_,
                      backend.Prepare(WeightUse::kTable, {weights.embedding}, {}));
  for (int i = 0; i < c.layers; ++i) {
    if (absl::Status status = decoder->PrepareLayer(weights.layers[i]); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("layer ", i, ": ", status.message()));
    }
    if (options.layer_prepared) options.layer_prepared(i + 1);
  }
  LH_RETURN_IF_ERROR(CheckShape("final_norm", weights.final_norm, 1, c.hidden));
  LH_ASSIGN_OR_RETURN(decoder->final_norm_,
                      backend.Prepare(WeightUse::kVector, {weights.final_norm}, {}));
  if (options.head && (!c.tied_head || options.collective != nullptr)) {
    const int64_t rows = ShareOf(c.vocab, decoder->shard_).count;
    LH_RETURN_IF_ERROR(CheckShape("head", weights.head, rows, c.hidden));
    LH_ASSIGN_OR_RETURN(decoder->head_, backend.Prepare(WeightUse::kTable, {weights.head}, {}));
  }
  return decoder;
}

absl::Status Decoder::PrepareLayer(const LayerWeights& weights) {
  const ModelConfig& c = config_;
  const int64_t q_width = int64_t{c.heads} * c.head_dim;
  const int64_t kv_width = int64_t{c.kv_heads} * c.head_dim;
  Layer& layer = layers_.emplace_back();
  LH_RETURN_IF_ERROR(CheckShape("attention_norm", weights.attention_norm, 1, c.hidden));
  LH_RETURN_IF_ERROR(CheckShape("q", weights.q, q_width, c.hidden));
  LH_RETURN_IF_ERROR(CheckShape("k", weights.k, kv_width, c.hidden));
  LH_RETURN_IF_ERROR(CheckShape("v", weights.v, kv_width, c.hidden));
  LH_RETURN_IF_ERROR(CheckShape("attention_out", weights.attention_out, c.hidden, q_width));
  LH_RETURN_IF_ERROR(CheckShape("ffn_norm", weights.ffn_norm, 1, c.hidden));
  LH_RETURN_IF_ERROR(CheckShape("gate", weights.gate, c.ffn_hidden, c.hidden));
  LH_RETURN_IF_ERROR(CheckShape("up", weights.up, c.ffn_hidden, c.hidden));
  LH_RETURN_IF_ERROR(CheckShape("down", weights.down, c.hidden, c.ffn_hidden));

  std::vector<WeightView> biases;
  if (c.qkv_bias) {
    LH_RETURN_IF_ERROR(CheckShape("q_bias", weights.q_bias, 1, q_width));
    LH_RETURN_IF_ERROR(CheckShape("k_bias", weights.k_bias, 1, kv_width));
    LH_RETURN_IF_ERROR(CheckShape("v_bias", weights.v_bias, 1, kv_width));
    biases = {weights.q_bias, weights.k_bias, weights.v_bias};
  }
  if (c.qk_norm) {
    LH_RETURN_IF_ERROR(CheckShape("q_norm", weights.q_norm, 1, c.head_dim));
    LH_RETURN_IF_ERROR(CheckShape("k_norm", weights.k_norm, 1, c.head_dim));
    LH_ASSIGN_OR_RETURN(layer.q_norm, backend_.Prepare(WeightUse::kVector, {weights.q_norm}, {}));
    LH_ASSIGN_OR_RETURN(layer.k_norm, backend_.Prepare(WeightUse::kVector, {weights.k_norm}, {}));
  }
  LH_ASSIGN_OR_RETURN(layer.attention_norm,
                      backend_.Prepare(WeightUse::kVector, {weights.attention_norm}, {}));
  LH_ASSIGN_OR_RETURN(
      layer.qkv, backend_.Prepare(WeightUse::kMatrix, {weights.q, weights.k, weights.v}, biases));
  LH_ASSIGN_OR_RETURN(layer.attention_out,
                      backend_.Prepare(WeightUse::kMatrix, {weights.attention_out}, {}));
  LH_ASSIGN_OR_RETURN(layer.ffn_norm, backend_.Prepare(WeightUse::kVector, {weights.ffn_norm}, {}));
  LH_ASSIGN_OR_RETURN(layer.gate_up,
                      backend_.Prepare(WeightUse::kGated, {weights.gate, weights.up}, {}));
  LH_ASSIGN_OR_RETURN(layer.down, backend_.Prepare(WeightUse::kMatrix, {weights.down}, {}));
  return absl::OkStatus();
}

Decoder::Activations Decoder::Shapes() const {
  const int64_t q_width = int64_t{config_.heads} * config_.head_dim;
  const int64_t bytes = backend_.activation_bytes();
  Activations a;
  a.residual = {nullptr, config_.hidden, sizeof(float)};
  a.normed = {nullptr, config_.hidden, bytes};
  a.qkv = {nullptr, q_width + int64_t{2} * config_.kv_heads * config_.head_dim, bytes};
  a.attended = {nullptr, q_width, bytes};
  a.gated = {nullptr, config_.ffn_hidden, bytes};
  if (leads()) a.logits = {nullptr, config_.vocab, sizeof(float)};
  if (collective_ != nullptr) {
    a.logits_part = {nullptr, ShareOf(config_.vocab, shard_).count, sizeof(float)};
  }
  return a;
}

int64_t Decoder::ActivationBytes(int64_t rows, int64_t logits_rows) const {
  const Activations a = Shapes();
  int64_t total = 0;
  for (const Activation* part : {&a.logits, &a.logits_part}) {
    total += PaddedBytes(logits_rows, part->width, part->element_bytes);
  }
  for (const Activation* part : {&a.residual, &a.normed, &a.qkv, &a.attended, &a.gated}) {
    total += PaddedBytes(rows, part->width, part->element_bytes);
  }
  return total;
}

absl::Status Decoder::Reserve(int64_t rows, int64_t logits_rows) {
  Activations& a = activations_;
  if (rows <= a.rows && logits_rows <= a.logits_rows) return absl::OkStatus();
  rows = std::max(rows, a.rows);
  logits_rows = std::max(logits_rows, a.logits_rows);
  a = Shapes();  // gives the old memory back before asking for more
  LH_ASSIGN_OR_RETURN(a.memory, backend_.Allocate(ActivationBytes(rows, logits_rows)));
  std::byte* next = a.memory->data();
  for (Activation* part : {&a.residual, &a.normed, &a.qkv, &a.attended, &a.gated}) {
    part->data = next;
    next += PaddedBytes(rows, part->width, part->element_bytes);
  }
  for (Activation* part : {&a.logits, &a.logits_part}) {
    part->data = next;
    next += PaddedBytes(logits_rows, part->width, part->element_bytes);
  }
  a.rows = rows;
  a.logits_rows = logits_rows;
  return absl::OkStatus();
}

void Decoder::ForPhases(const Batch& batch, int64_t first,
                        absl::FunctionRef<void(int64_t, int64_t, Phase)> body) {
  if (first < batch.prefill_rows) body(first, batch.prefill_rows, Phase::kPrefill);
  if (batch.decode_rows() > 0) body(batch.prefill_rows, batch.rows(), Phase::kDecode);
}

void Decoder::Norm(const PreparedWeight& weight, const Batch& batch, int64_t first) {
  const Activations& a = activations_;
  ForPhases(batch, first, [&](int64_t begin, int64_t end, Phase phase) {
    backend_.RmsNorm(a.normed.Rows(begin, end), a.residual.Rows(begin, end), weight,
                     config_.rms_epsilon, phase);
  });
}

void Decoder::MatMul(const Activation& out, const Activation& x, const PreparedWeight& weight,
                     bool accumulate, const Batch& batch, int64_t first) {
  ForPhases(batch, first, [&](int64_t begin, int64_t end, Phase phase) {
    backend_.MatMul(out.Rows(begin, end), x.Rows(begin, end), weight, accumulate, phase);
  });
}

void Decoder::AddToResidual(const Activation& x, const PreparedWeight& weight, const Batch& batch,
                            int64_t first) {
  const Activation& residual = activations_.residual;
  const Tensor rows = residual.Rows(first, batch.rows());
  // The stream itself goes into the sum once.
  if (!leads()) backend_.Clear(rows);
  MatMul(residual, x, weight, true, batch, first);
  if (collective_ == nullptr) return;
  backend_.Flush();
  collective_->AllReduce(rows);
}

void Decoder::FeedForward(const Layer& layer, const Batch& batch, int64_t first) {
  const Activations& a = activations_;
  Norm(*layer.ffn_norm, batch, first);
  ForPhases(batch, first, [&](int64_t begin, int64_t end, Phase phase) {
    backend_.GatedMatMul(a.gated.Rows(begin, end), a.normed.Rows(begin, end), *layer.gate_up,
                         phase);
  });
  AddToResidual(a.gated, *layer.down, batch, first);
}

void Decoder::RunLayers(const Batch& batch, const KvPool& pool, LayerStored layer_stored) {
  const Activations& a = activations_;
  const int64_t rows = batch.rows();
  const int64_t q_width = a.attended.width;
  const Tensor qkv = a.qkv.Rows(0, rows);
  for (int i = 0; i < config_.layers; ++i) {
    const Layer& layer = layers_[i];
    Norm(*layer.attention_norm, batch, 0);
    MatMul(a.qkv, a.normed, *layer.qkv, false, batch, 0);
    if (config_.qk_norm) {
      backend_.HeadNorm(qkv, 0, config_.heads, *layer.q_norm, config_.rms_epsilon);
      backend_.HeadNorm(qkv, q_width, config_.kv_heads, *layer.k_norm, config_.rms_epsilon);
    }
    backend_.RopeAndStoreKv(qkv, batch, config_, pool, i);
    if (batch.prefill_rows > 0) layer_stored(i, backend_.Record());
    // Of the last layer a prefill row needed only its KV.
    const bool last = i + 1 == config_.layers;
    if (last && batch.decode_rows() == 0) return;
    const int64_t first = last ? batch.prefill_rows : 0;
    const Tensor attended = a.attended.Rows(0, rows);
    if (first < batch.prefill_rows) {
      backend_.Attention(attended, qkv, batch, config_, pool, i, Phase::kPrefill);
    }
    if (batch.decode_rows() > 0) {
      backend_.Attention(attended, qkv, batch, config_, pool, i, Phase::kDecode);
    }
    AddToResidual(a.attended, *layer.attention_out, batch, first);
    FeedForward(layer, batch, first);
  }
  Logits(batch);
}

void Decoder::Logits(const Batch& batch) {
  const Activations& a = activations_;
  LH_CHECK(head_ != nullptr || (config_.tied_head && collective_ == nullptr),
           "a decoder without its head cannot sample");
  Norm(*final_norm_, batch, batch.prefill_rows);
  const Tensor last_normed = a.normed.Rows(batch.prefill_rows, batch.rows());
  const Tensor logits = a.logits.Rows(0, batch.decode_rows());
  if (collective_ == nullptr) {
    backend_.MatMul(logits, last_normed, head_ == nullptr ? *embedding_ : *head_, false,
                    Phase::kDecode);
    return;
  }
  const Tensor part = a.logits_part.Rows(0, batch.decode_rows());
  backend_.MatMul(part, last_normed, *head_, false, Phase::kDecode);
  backend_.Flush();
  collective_->Gather({logits.data, logits.rows, config_.vocab}, part);
}

absl::StatusOr<std::vector<absl::StatusOr<SampledToken>>> Decoder::Run(
    const Batch& batch, const KvPool& pool, absl::Span<SampleRow> samples,
    LayerStored layer_stored) {
  const int64_t rows = batch.rows();
  const int64_t sampled_rows = batch.decode_rows();
  LH_CHECK(rows > 0, "an empty step");
  LH_CHECK(static_cast<int64_t>(samples.size()) == sampled_rows,
           absl::StrCat(samples.size(), " samples for ", sampled_rows, " decode rows"));
  absl::Status ready = Reserve(rows, sampled_rows);
  if (ready.ok()) ready = backend_.BeginStep(batch, config_, pool);
  if (collective_ != nullptr) ready = collective_->Agree(std::move(ready));
  LH_RETURN_IF_ERROR(ready);

  backend_.Embed(activations_.residual.Rows(0, rows), *embedding_, batch.tokens);
  if (batch.prefill_rows > 0) {
    RunLayers(batch, pool, layer_stored);
  } else {
    // Decode steps come again and again in few shapes: worth recording where a device can.
    backend_.Run(static_cast<uint64_t>(rows), [&] { RunLayers(batch, pool, layer_stored); });
    const DeviceEvent stored = backend_.Record();
    for (int i = 0; i < config_.layers; ++i) layer_stored(i, stored);
  }
  std::vector<absl::StatusOr<SampledToken>> sampled;
  if (leads() && sampled_rows > 0) {
    for (int64_t i = 0; i < sampled_rows; ++i) samples[i].row = i;
    sampled = backend_.Sample(activations_.logits.Rows(0, sampled_rows), samples);
  }
  if (collective_ != nullptr) LH_RETURN_IF_ERROR(collective_->status());
  return sampled;
}

}  // namespace longhaul
