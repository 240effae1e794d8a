// How fast text becomes tokens, on one core: MiB/s on English prose, and on hostile texts of
// growing size, whose speed must not fall with the size.
//
//   build/release/bin/tokenizer_bench [MODEL_FILE] [--benchmark_filter=...]
//
// The vocabulary is MODEL_FILE's (default: SmolLM2, where ./longhaul setup puts it); the splitters
// of Llama 3 and Qwen2 run on the same vocabulary. The prose is Debian's
// /usr/share/common-licenses.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "common/model/model_file.h"
#include "router/text/tokenizer.h"

namespace longhaul {
namespace {

constexpr char kDefaultModel[] = ".longhaul/models/SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr size_t kProseBytes = size_t{1} << 20;

TokenizerData* vocabulary = nullptr;

std::unique_ptr<Tokenizer> MakeTokenizer(const char* pre_tokenizer) {
  TokenizerData data = *vocabulary;
  data.pre_tokenizer = pre_tokenizer;
  return *Tokenizer::Make(data);
}

std::string RepeatTo(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  text.resize(bytes);
  return text;
}

std::string Prose() {
  std::string text;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/share/common-licenses")) {
    if (entry.is_symlink()) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    text.append(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return RepeatTo(text.empty() ? "No licences on this machine. " : text, kProseBytes);
}

std::string RandomLetters(size_t bytes) {
  std::string text(bytes, ' ');
  uint64_t state = 1;
  for (char& c : text) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    c = static_cast<char>('a' + (state >> 59) % 26);
  }
  return text;
}

void EncodeText(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  size_t tokens = 0;
  for (auto _ : state) {
    const std::vector<int32_t> ids = tokenizer.Encode(text, false, true);
    tokens = ids.size();
    benchmark::DoNotOptimize(ids.data());
  }
  const double encoded = static_cast<double>(text.size()) * static_cast<double>(state.iterations());
  state.counters["MiB/s"] = benchmark::Counter(encoded / (1 << 20), benchmark::Counter::kIsRate);
  state.counters["bytes/token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
}

void BM_EncodeProse(benchmark::State& state, const char* pre_tokenizer) {
  EncodeText(state, *MakeTokenizer(pre_tokenizer), Prose());
}
BENCHMARK_CAPTURE(BM_EncodeProse, smollm, "smollm")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeProse, llama3, "llama-bpe")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeProse, qwen2, "qwen2")->Unit(benchmark::kMillisecond);
// A chat message: what a call costs before the first byte counts here.
void BM_EncodeShort(benchmark::State& state) {
  EncodeText(state, *MakeTokenizer("smollm"), Prose().substr(1000, 200));
}
BENCHMARK(BM_EncodeShort);

void BM_EncodeHostile(benchmark::State& state, const char* pre_tokenizer, const char* unit) {
  const size_t bytes = static_cast<size_t>(state.range(0));
  const std::string text = unit == nullptr ? RandomLetters(bytes) : RepeatTo(unit, bytes);
  EncodeText(state, *MakeTokenizer(pre_tokenizer), text);
}

void Sizes(benchmark::internal::Benchmark* bench) {
  bench->RangeMultiplier(8)->Range(1 << 14, 1 << 20)->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_EncodeHostile, one_letter, "smollm", "a")->Apply(Sizes);
BENCHMARK_CAPTURE(BM_EncodeHostile, random_letters, "smollm", nullptr)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_EncodeHostile, spaces, "smollm", " ")->Apply(Sizes);
BENCHMARK_CAPTURE(BM_EncodeHostile, spaces_and_newlines, "llama-bpe", "\n   ")->Apply(Sizes);
BENCHMARK_CAPTURE(BM_EncodeHostile, apostrophes, "llama-bpe", "'")->Apply(Sizes);
BENCHMARK_CAPTURE(BM_EncodeHostile, half_special, "smollm", "<|im_star")->Apply(Sizes);
BENCHMARK_CAPTURE(BM_EncodeHostile, marks, "qwen2", "\u0301\u0327")->Apply(Sizes);
BENCHMARK_CAPTURE(BM_EncodeHostile, invalid_bytes, "qwen2", "\xff\x80")->Apply(Sizes);
BENCHMARK_CAPTURE(BM_EncodeHostile, backtracking_regex, "gpt-4o", "aB")->Apply(Sizes);

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  auto file = longhaul::LoadModelFile(argc > 1 ? argv[1] : longhaul::kDefaultModel);
  if (!file.ok()) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", file.status().ToString().c_str());
    return 1;
  }
  longhaul::vocabulary = &file->tokenizer;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
