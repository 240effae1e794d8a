// A decoder on any backend with a pool of its own, run step by step: what decoder tests are written
// over.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/model/decoder.h"
#include "common/model/tensor_shard.h"
#include "tests/common/model/tiny_model.h"

namespace longhaul {

inline std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
  return tokens;
}

// A model, or a rank's part of it, on a backend with a pool of its own.
class RunningDecoder {
 public:
  RunningDecoder(const ModelFile& model, std::unique_ptr<Backend> backend, int block_tokens = 16,
                 std::unique_ptr<Collective> collective = nullptr)
      : collective_(std::move(collective)), backend_(std::move(backend)) {
    const TensorShard shard = collective_ == nullptr ? TensorShard() : collective_->shard();
    const ModelConfig config = ShardConfig(model.config, shard).value();
    const ModelWeights weights = ShardWeights(model.config, model.weights, shard).value();
    decoder_ =
        Decoder::Create(*backend_, config, weights, {.collective = collective_.get()}).value();
    pool_.layout = {config.layers, config.kv_heads, config.head_dim, block_tokens};
    pool_.blocks = 256;
    memory_ = backend_->Allocate(pool_.blocks * pool_.layout.block_bytes()).value();
    pool_.data = memory_->data();
  }

  struct Part {
    Phase phase;
    const std::vector<int32_t>* tokens;  // of the whole sequence
    int64_t position;
    int64_t count;
    std::vector<BlockId> blocks;
  };
  // Runs one step; log probabilities of all tokens for each decode part, by token; on ranks but the
  // first nothing.
  std::vector<std::vector<float>> Step(std::vector<Part> parts) {
    return TryStep(std::move(parts)).value();
  }
  absl::StatusOr<std::vector<std::vector<float>>> TryStep(std::vector<Part> parts) {
    Batch batch;
    for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) {
      for (const Part& part : parts) {
        if (part.phase != phase) continue;
        // Parts of one sequence share its table, as those of a plan do.
        const Part& first = *std::find_if(parts.begin(), parts.end(), [&](const Part& other) {
          return other.tokens == part.tokens && other.blocks == part.blocks;
        });
        batch.sequences.push_back({phase, batch.rows(), part.count, part.position, first.blocks});
        batch.tokens.insert(batch.tokens.end(), part.tokens->begin() + part.position,
                            part.tokens->begin() + part.position + part.count);
      }
      if (phase == Phase::kPrefill) batch.prefill_rows = batch.rows();
    }
    SamplingParams params;
    params.temperature = 0.0f;
    params.top_logprobs = static_cast<int32_t>(decoder_->config().vocab);
    std::vector<SampleRow> samples(batch.decode_rows());
    for (SampleRow& sample : samples) sample.params = &params;
    layers_.clear();
    auto sampled = decoder_->Run(batch, pool_, absl::MakeSpan(samples),
                                 [&](int layer, DeviceEvent) { layers_.push_back(layer); });
    if (!sampled.ok()) return sampled.status();
    std::vector<std::vector<float>> logprobs;
    for (const auto& token : *sampled) {
      std::vector<float>& row = logprobs.emplace_back(decoder_->config().vocab);
      for (const auto& [id, logprob] : token.value().top_logprobs) row[id] = logprob;
    }
    return logprobs;
  }
  // The prompt in chunks but its last token, then that: its log probabilities.
  std::vector<float> Prompt(const std::vector<int32_t>& tokens, int64_t chunk,
                            const std::vector<BlockId>& blocks) {
    const int64_t last = static_cast<int64_t>(tokens.size()) - 1;
    for (int64_t done = 0; done < last; done += chunk) {
      Step({{Phase::kPrefill, &tokens, done, std::min(chunk, last - done), blocks}});
    }
    const auto logprobs = Step({{Phase::kDecode, &tokens, last, 1, blocks}});
    return logprobs.empty() ? std::vector<float>() : logprobs[0];
  }
  std::vector<BlockId> Blocks(int first, int count) const {
    std::vector<BlockId> blocks(count);
    std::iota(blocks.rbegin(), blocks.rend(), first);
    return blocks;
  }
  // All KV of a sequence, in order of position.
  std::string Kv(const std::vector<BlockId>& blocks) const {
    std::string bytes;
    const int64_t slab_bytes = pool_.layout.slab_bytes();
    for (int layer = 0; layer < pool_.layout.layers; ++layer) {
      for (const BlockId block : blocks) {
        bytes.resize(bytes.size() + slab_bytes);
        backend_->Copy(bytes.data() + bytes.size() - slab_bytes,
                       pool_.data + pool_.layout.SlabOffset(pool_.blocks, layer, block),
                       slab_bytes);
        backend_->Wait(backend_->Record());
      }
    }
    return bytes;
  }
  const std::vector<int>& layers() const { return layers_; }

  const KvPool& pool() const { return pool_; }

 private:
  const std::unique_ptr<Collective> collective_;
  const std::unique_ptr<Backend> backend_;
  std::unique_ptr<Decoder> decoder_;
  KvPool pool_;
  std::unique_ptr<DeviceBuffer> memory_;
  std::vector<int> layers_;
};

}  // namespace longhaul
