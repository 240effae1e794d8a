// The ranks of a tensor-parallel group, each a RunningDecoder, run in threads.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/model/backend_rank.h"
#include "common/model/sharded_kv_pool.h"
#include "tests/kernels/running_decoder.h"

namespace longhaul {

class RunningRanks {
 public:
  RunningRanks(const ModelFile& model, std::vector<BackendRank> ranks, int block_tokens = 16) {
    for (BackendRank& rank : ranks) {
      collectives_.push_back(rank.collective.get());
      ranks_.push_back(std::make_unique<RunningDecoder>(model, std::move(rank.backend),
                                                        block_tokens, std::move(rank.collective)));
    }
    layout_ = ranks_[0]->pool().layout;
    layout_.kv_heads = model.config.kv_heads;
  }

  // body(rank's decoder) on all ranks at once.
  template <typename Body>
  auto Run(Body body) {
    std::vector<decltype(body(*ranks_[0]))> results(ranks_.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < ranks_.size(); ++i) {
      threads.emplace_back([&, i] { results[i] = body(*ranks_[i]); });
    }
    for (std::thread& thread : threads) thread.join();
    return std::move(results[0]);
  }
  std::vector<float> Prompt(const std::vector<int32_t>& tokens, int64_t chunk,
                            const std::vector<BlockId>& blocks) {
    return Run([&](RunningDecoder& rank) { return rank.Prompt(tokens, chunk, blocks); });
  }
  // Greedily, `count` more tokens after `tokens`, whose KV but the last one's is there.
  std::vector<int32_t> Generate(std::vector<int32_t> tokens, int count,
                                const std::vector<BlockId>& blocks) {
    const auto first = static_cast<std::ptrdiff_t>(tokens.size());
    for (int i = 0; i < count; ++i) {
      const auto last = static_cast<int64_t>(tokens.size()) - 1;
      const std::vector<float> row = Run([&](RunningDecoder& rank) {
        return rank.Step({{Phase::kDecode, &tokens, last, 1, blocks}});
      })[0];
      tokens.push_back(
          static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
    }
    return {tokens.begin() + first, tokens.end()};
  }
  std::vector<BlockId> Blocks(int first, int count) const {
    return ranks_[0]->Blocks(first, count);
  }
  std::vector<std::string> Kv(const std::vector<BlockId>& blocks) const {
    std::vector<std::string> kv;
    for (const auto& rank : ranks_) kv.push_back(rank->Kv(blocks));
    return kv;
  }
  ShardedKvPool pool() const {
    ShardedKvPool pool(layout_, ranks_[0]->pool().blocks, {});
    for (const auto& rank : ranks_) pool.ranks.push_back(rank->pool().data);
    return pool;
  }
  RunningDecoder& rank(int rank) { return *ranks_[rank]; }
  Collective& collective(int rank) { return *collectives_[rank]; }

 private:
  KvLayout layout_;
  std::vector<Collective*> collectives_;
  std::vector<std::unique_ptr<RunningDecoder>> ranks_;
};

}  // namespace longhaul
