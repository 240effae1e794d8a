// The speed of the model on this machine's CPU, the way a worker runs it: prompt processing (KV
// only, no logits) in chunks and single-stream greedy decoding, on Decoder over the CPU backend.
// Prints one JSON object; tools/bench/beside_llama_cpp.py sets it beside llama.cpp.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <numeric>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/model/decoder.h"
#include "common/model/model_file.h"
#include "kernels/cpu/cpu_backend.h"

ABSL_FLAG(std::string, model, "", "GGUF file or Hugging Face folder");
ABSL_FLAG(int, threads, 2, "threads; the first is the caller");
ABSL_FLAG(std::string, isa, "", "use no more than this level: avx2, avx512, avx512_bf16, amx");
ABSL_FLAG(std::vector<std::string>, prompts, std::vector<std::string>({"512", "4096"}),
          "prompt lengths in tokens");
ABSL_FLAG(int, chunk, 512, "prompt tokens in a step");
ABSL_FLAG(int, decode_tokens, 64, "tokens decoded after each prompt");
ABSL_FLAG(int, batch, 1, "sequences that decode together, all over the same prompt's KV");
ABSL_FLAG(int, repeats, 3, "runs of each measurement; the median is printed");

namespace longhaul {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// CPU time of all threads: what a busy machine shows more steadily than the clock.
double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + now.tv_nsec * 1e-9;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(Decoder& decoder, KvPool pool) : decoder_(decoder), pool_(pool) {
    blocks_.resize(pool.blocks);
    std::iota(blocks_.begin(), blocks_.end(), 0);
  }

  // Seconds for the KV of positions [0, tokens).
  double Prefill(int64_t tokens) {
    const double start = Seconds();
    for (int64_t done = 0; done < tokens;) {
      const int64_t count = std::min<int64_t>(absl::GetFlag(FLAGS_chunk), tokens - done);
      Batch batch;
      batch.prefill_rows = count;
      for (int64_t i = 0; i < count; ++i) batch.tokens.push_back(TokenAt(done + i));
      batch.sequences.push_back({Phase::kPrefill, 0, count, done, blocks_});
      Check(decoder_.Run(batch, pool_, {}, [](int, DeviceEvent) {}).status());
      done += count;
    }
    return Seconds() - start;
  }

  // Seconds for `steps` steps from `position` on, each of `sequences` rows.
  double Decode(int64_t position, int steps, int sequences) {
    SamplingParams greedy;
    greedy.temperature = 0.0f;
    int32_t token = TokenAt(position);
    const double start = Seconds();
    for (int i = 0; i < steps; ++i) {
      Batch batch;
      std::vector<SampleRow> samples(sequences);
      for (int s = 0; s < sequences; ++s) {
        batch.tokens.push_back(token);
        batch.sequences.push_back({Phase::kDecode, s, 1, position + i, blocks_});
        samples[s].params = &greedy;
        samples[s].output_position = position + i + 1;
      }
      auto sampled = decoder_.Run(batch, pool_, absl::MakeSpan(samples), [](int, DeviceEvent) {});
      Check(sampled.status());
      Check((*sampled)[0].status());
      token = (*sampled)[0]->token;
    }
    return Seconds() - start;
  }

  static void Check(const absl::Status& status) { LH_CHECK(status.ok(), status.ToString()); }

 private:
  int32_t TokenAt(int64_t position) const {
    return static_cast<int32_t>((position * 2654435761u >> 7) % (decoder_.config().vocab - 100)) +
           50;
  }

  Decoder& decoder_;
  const KvPool pool_;
  std::vector<BlockId> blocks_;
};

absl::Status Main() {
  const double load_start = Seconds();
  LH_ASSIGN_OR_RETURN(const ModelFile model, LoadModelFile(absl::GetFlag(FLAGS_model)));
  CpuBackendOptions options;
  options.threads = absl::GetFlag(FLAGS_threads);
  options.pack_prefill_at_load = true;
  if (const std::string isa = absl::GetFlag(FLAGS_isa); !isa.empty()) {
    LH_ASSIGN_OR_RETURN(options.isa_max, ParseCpuIsa(isa));
  }
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeCpuBackend(options));
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<Decoder> decoder,
                      Decoder::Create(*backend, model.config, model.weights));
  const double load_s = Seconds() - load_start;

  std::vector<int64_t> prompts;
  for (const std::string& prompt : absl::GetFlag(FLAGS_prompts)) {
    prompts.push_back(std::stoll(prompt));
  }
  const int decode_tokens = absl::GetFlag(FLAGS_decode_tokens);
  KvPool pool;
  pool.layout = {model.config.layers, model.config.kv_heads, model.config.head_dim};
  pool.blocks =
      pool.layout.BlocksFor(*std::max_element(prompts.begin(), prompts.end()) + decode_tokens + 1);
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBuffer> memory,
                      backend->Allocate(pool.blocks * pool.layout.block_bytes()));
  pool.data = memory->data();

  Bench bench(*decoder, pool);
  bench.Prefill(64);  // makes the oneDNN primitives
  bench.Decode(64, 2, 1);
  std::printf("{\"device\": \"%s\", \"load_s\": %.3f, \"results\": [", backend->name().c_str(),
              load_s);
  const int repeats = absl::GetFlag(FLAGS_repeats);
  const int sequences = absl::GetFlag(FLAGS_batch);
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<double> prefill;
    std::vector<double> decode;
    double prefill_cpu_s = 0;
    double decode_cpu_s = 0;
    for (int repeat = 0; repeat < repeats; ++repeat) {
      const double start = CpuSeconds();
      prefill.push_back(prompts[i] / bench.Prefill(prompts[i]));
      const double between = CpuSeconds();
      decode.push_back(double{1} * decode_tokens * sequences /
                       bench.Decode(prompts[i], decode_tokens, sequences));
      prefill_cpu_s += between - start;
      decode_cpu_s += CpuSeconds() - between;
    }
    std::printf(
        "%s{\"prompt\": %lld, \"prefill_tps\": %.1f, \"decode_tps\": %.1f, "
        "\"prefill_tokens_per_cpu_s\": %.1f, \"decode_tokens_per_cpu_s\": %.1f}",
        i == 0 ? "" : ", ", static_cast<long long>(prompts[i]), Median(prefill), Median(decode),
        repeats * prompts[i] / prefill_cpu_s,
        double{1} * repeats * decode_tokens * sequences / decode_cpu_s);
  }
  std::printf("]}\n");
  return absl::OkStatus();
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = longhaul::Main();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
