// Greedy generation through ModelExecutor, for tests that hold its tokens and log probabilities
// against other implementations. Standard input: one prompt a line, token ids with spaces between.
// Standard output: the generated ids of each, one line a prompt.
#include <algorithm>
#include <fstream>
#include <future>
#include <iostream>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/engine/model_executor.h"
#include "common/engine/worker_model.h"
#include "common/runtime/thread_loop.h"
#include "kernels/choose_backend.h"

ABSL_FLAG(std::string, model, "", "GGUF file or Hugging Face folder");
ABSL_FLAG(std::string, backend, "cpu", "cpu, cuda or auto");
ABSL_FLAG(int, tensor_parallel, 1, "ranks that share the model");
ABSL_FLAG(int, threads, 2, "threads of each rank's backend");
ABSL_FLAG(std::string, isa, "", "use no more than this level");
ABSL_FLAG(int, chunk, 512, "prompt tokens in a step");
ABSL_FLAG(int, max_tokens, 16, "tokens to generate for each prompt");
ABSL_FLAG(bool, follow, false,
          "the last max_tokens ids of a line are no prompt: they are taken for what was generated");
ABSL_FLAG(std::string, logprobs, "",
          "file for the log probabilities of each generated token: float32 [vocab]");

namespace longhaul {
namespace {

StepResult Step(Loop& owner, Executor& executor, StepSequence sequence) {
  std::promise<StepResult> done;
  owner.Post([&] {
    StepPlan plan;
    plan.sequences.push_back(sequence);
    executor.Execute(std::move(plan), nullptr,
                     [&](StepResult result) { done.set_value(std::move(result)); });
  });
  return done.get_future().get();
}

struct Generation {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // [tokens][vocab], where they are asked for
};

Generation Generate(Loop& owner, Executor& executor, const std::vector<int32_t>& line,
                    const std::vector<BlockId>& blocks, int64_t vocab) {
  const int steps = absl::GetFlag(FLAGS_max_tokens);
  const auto given = static_cast<int64_t>(line.size());
  const int64_t prompt = absl::GetFlag(FLAGS_follow) ? given - steps : given;
  LH_CHECK(prompt > 0, "a line without a prompt");
  auto greedy = std::make_shared<SamplingParams>();
  greedy->temperature = 0.0f;
  const bool all = !absl::GetFlag(FLAGS_logprobs).empty();
  if (all) greedy->top_logprobs = static_cast<int32_t>(vocab);
  StepSequence sequence;
  sequence.id = 1;
  sequence.blocks = blocks;
  // The hand-off's cut: all but the last token leave KV, the last is the first decode step.
  const int64_t before_last = prompt - 1;
  for (int64_t done = 0; done < before_last; done += absl::GetFlag(FLAGS_chunk)) {
    const int64_t end = std::min<int64_t>(before_last, done + absl::GetFlag(FLAGS_chunk));
    sequence.tokens.assign(line.begin() + done, line.begin() + end);
    sequence.position = done;
    Step(owner, executor, sequence);
  }
  Generation generation;
  generation.logprobs.resize(all ? steps * vocab : 0);
  sequence.sample = true;
  sequence.sampling = greedy;
  sequence.tokens = {line[before_last]};
  sequence.position = before_last;
  for (int i = 0; i < steps; ++i) {
    const StepResult result = Step(owner, executor, sequence);
    LH_CHECK(result.sequences[0].status.ok(), result.sequences[0].status.ToString());
    const SampledToken& sampled = result.sequences[0].sampled;
    generation.tokens.push_back(sampled.token);
    for (const auto& [token, logprob] : sampled.top_logprobs) {
      generation.logprobs[i * vocab + token] = logprob;
    }
    sequence.tokens = {absl::GetFlag(FLAGS_follow) ? line[prompt + i] : sampled.token};
    ++sequence.position;
  }
  return generation;
}

absl::Status Main() {
  BackendChoice choice;
  choice.backend = absl::GetFlag(FLAGS_backend);
  choice.tensor_parallel = absl::GetFlag(FLAGS_tensor_parallel);
  CpuBackendOptions& options = choice.cpu;
  options.threads = absl::GetFlag(FLAGS_threads);
  if (const std::string isa = absl::GetFlag(FLAGS_isa); !isa.empty()) {
    LH_ASSIGN_OR_RETURN(options.isa_max, ParseCpuIsa(isa));
  }
  LH_ASSIGN_OR_RETURN(const std::vector<BackendRank> ranks, ChooseBackend(choice));
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<WorkerModel> model,
                      WorkerModel::Load(ranks, {.path = absl::GetFlag(FLAGS_model)}));
  const KvLayout& layout = model->pool().layout;
  std::vector<BlockId> blocks(
      std::min(model->pool().blocks, layout.BlocksFor(model->file().config.context_tokens_max)));
  std::iota(blocks.rbegin(), blocks.rend(), 0);  // backwards: nothing may depend on the order

  ThreadLoop owner({.name = "owner"});
  auto executor = std::make_unique<ModelExecutor>(owner, model->ranks());
  std::ofstream logprobs(absl::GetFlag(FLAGS_logprobs), std::ios::binary);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream ids(line);
    std::vector<int32_t> prompt;
    for (int32_t id; ids >> id;) prompt.push_back(id);
    const Generation generation =
        Generate(owner, *executor, prompt, blocks, model->file().config.vocab);
    for (const int32_t token : generation.tokens) std::cout << token << ' ';
    std::cout << std::endl;
    logprobs.write(reinterpret_cast<const char*>(generation.logprobs.data()),
                   static_cast<std::streamsize>(generation.logprobs.size() * sizeof(float)));
  }
  std::promise<void> gone;
  owner.Post([&] {
    executor.reset();
    gone.set_value();
  });
  gone.get_future().wait();
  return absl::OkStatus();
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = longhaul::Main();
  if (!status.ok()) std::cerr << status << '\n';
  return status.ok() ? 0 : 1;
}
