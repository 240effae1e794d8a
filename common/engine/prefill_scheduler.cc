#include "common/engine/prefill_scheduler.h"

#include <algorithm>

namespace longhaul {

void PrefillScheduler::Add(SequenceId id, int64_t position, int64_t end, int64_t now_us) {
  const double alone_us = std::max(1.0, cost_->PrefillUs(end - position, position));
  jobs_.emplace(id, Job{position, end, alone_us,
                        static_cast<double>(now_us) + options_.deadline_scale * alone_us});
}

double PrefillScheduler::RelativeSlack(const Job& job, int64_t now_us) const {
  const double remaining_us = cost_->PrefillUs(job.end - job.position, job.position);
  return (job.due_us - static_cast<double>(now_us) - remaining_us) / job.alone_us;
}

std::optional<PrefillScheduler::Chunk> PrefillScheduler::Next(int64_t now_us,
                                                              double room_us) const {
  const auto tightest =
      std::min_element(jobs_.begin(), jobs_.end(), [&](const auto& a, const auto& b) {
        return RelativeSlack(a.second, now_us) < RelativeSlack(b.second, now_us);
      });
  if (tightest == jobs_.end()) return std::nullopt;
  const Job& job = tightest->second;
  // A chunk that starts inside a block first runs to its border.
  const int64_t to_border =
      (options_.block_tokens - job.position % options_.block_tokens) % options_.block_tokens;
  const int64_t tokens =
      to_border + cost_->ChunkTokens(job.position, std::min(options_.chunk_target_us, room_us),
                                     options_.chunk_tokens_max, options_.block_tokens);
  return Chunk{tightest->first, job.position, std::min(tokens, job.end - job.position)};
}

void PrefillScheduler::Advance(const Chunk& chunk) {
  const auto job = jobs_.find(chunk.id);
  if (job == jobs_.end()) return;
  job->second.position = chunk.position + chunk.tokens;
  if (job->second.position >= job->second.end) jobs_.erase(job);
}

double PrefillScheduler::queued_us() const {
  double total_us = 0;
  for (const auto& [id, job] : jobs_)
    total_us += cost_->PrefillUs(job.end - job.position, job.position);
  return total_us;
}

}  // namespace longhaul
