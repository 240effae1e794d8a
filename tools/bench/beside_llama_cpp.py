#!/usr/bin/env python3
"""Longhaul's CPU backend beside llama.cpp: the same GGUF file, the same cores, one run.

Runs cpu_model_bench and llama.cpp (the PyPI package llama-cpp-python) in turns, so that a busy
machine treats both alike, and prints the medians and their ratios. Prompt processing is the time for
all tokens of a prompt in batches of 512; decoding is greedy, one sequence, after that prompt.

    python3 -m venv .longhaul/bench-venv
    .longhaul/bench-venv/bin/pip install llama-cpp-python==0.3.36 numpy   # compiles for some minutes
    .longhaul/bench-venv/bin/python tools/bench/beside_llama_cpp.py --bench build/release/bin/cpu_model_bench

llama.cpp computes the last token's logits with the prompt; Longhaul's prompt time ends with the KV, the
first decode step makes those logits. On a 512-token prompt that is about one part in a thousand.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import time


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown"


class LlamaCpp:
    """One context of llama.cpp."""

    def __init__(self, model, threads, context_tokens):
        import llama_cpp

        self.version = llama_cpp.__version__
        self.llama = llama_cpp.Llama(
            model_path=model, n_ctx=context_tokens, n_batch=512, n_ubatch=512, n_threads=threads,
            n_threads_batch=threads, logits_all=False, verbose=False)
        self.vocab = self.llama.n_vocab()
        self.api = llama_cpp
        self.measure(64, 2)

    def greedy(self):
        import numpy

        logits = self.api.llama_get_logits_ith(self.llama.ctx, -1)
        return int(numpy.ctypeslib.as_array(logits, shape=(self.vocab,)).argmax())

    def measure(self, prompt_tokens, decode_tokens):
        """(prompt tokens/s, decoded tokens/s)"""
        prompt = [50 + i * 2654435761 % (self.vocab - 100) for i in range(prompt_tokens)]
        self.llama.reset()
        start = time.perf_counter()
        self.llama.eval(prompt)
        prefilled = time.perf_counter()
        token = self.greedy()
        decode_start = time.perf_counter()
        for _ in range(decode_tokens):
            self.llama.eval([token])
            token = self.greedy()
        end = time.perf_counter()
        return prompt_tokens / (prefilled - start), decode_tokens / (end - decode_start)


def longhaul(options, prompt_tokens):
    out = subprocess.run(
        [options.bench, f"--model={options.model}", f"--threads={options.threads}",
         f"--prompts={prompt_tokens}", f"--decode_tokens={options.decode_tokens}", "--repeats=1"]
        + ([f"--isa={options.isa}"] if options.isa else []),
        check=True, stdout=subprocess.PIPE, text=True).stdout
    report = json.loads(out)
    result = report["results"][0]
    return report["device"], result["prefill_tps"], result["decode_tps"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default="build/release/bin/cpu_model_bench")
    parser.add_argument("--model", default=next(iter(glob.glob(".longhaul/models/*.gguf")), None))
    parser.add_argument("--cores", default="0,1", help="cores that both may use")
    parser.add_argument("--prompts", default="512,4096")
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--isa", default="", help="cap Longhaul's instruction level")
    options = parser.parse_args()
    cores = {int(core) for core in options.cores.split(",")}
    os.sched_setaffinity(0, cores)
    options.threads = len(cores)
    prompts = [int(prompt) for prompt in options.prompts.split(",")]

    theirs = LlamaCpp(options.model, options.threads, max(prompts) + options.decode_tokens + 8)
    figures = {}
    device = ""
    for _ in range(options.repeats):
        for prompt in prompts:
            device, prefill, decode = longhaul(options, prompt)
            their_prefill, their_decode = theirs.measure(prompt, options.decode_tokens)
            for name, ours, other in (("prompt", prefill, their_prefill),
                                      ("decode", decode, their_decode)):
                figures.setdefault((name, prompt), []).append((ours, other))

    print(f"{cpu_name()}, cores {options.cores}; Longhaul on {device}; "
          f"llama-cpp-python {theirs.version}; {os.path.basename(options.model)}; "
          f"medians of {options.repeats}, tokens/s")
    print(f"{'':24}{'Longhaul':>12}{'llama.cpp':>12}{'ratio':>8}   lowest to highest ratio")
    for (name, prompt), pairs in sorted(figures.items(), key=lambda item: item[0][0] != "prompt"):
        ours = statistics.median(pair[0] for pair in pairs)
        other = statistics.median(pair[1] for pair in pairs)
        ratios = sorted(pair[0] / pair[1] for pair in pairs)
        label = f"prompt of {prompt}" if name == "prompt" else f"decode at {prompt}"
        print(f"{label:24}{ours:12.1f}{other:12.1f}{ours / other:8.2f}"
              f"   {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
