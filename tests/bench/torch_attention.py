#!/usr/bin/env python3
"""Causal prefill attention beside PyTorch's (cuDNN's and the flash kernel), Llama-3-8B's heads, in turns on one GPU.

    python3 tests/bench/torch_attention.py --bench build/release/bin/prefill_attention_bench --tokens 8192,16384,32768

Prints the medians of the rounds in TFLOP/s, counted as prefill_attention_bench.cc counts, and the ratio to the faster of
PyTorch's two. A long product makes the GPU lower its clock to stay within its power, whoever runs it: each measurement is
15 runs after a pause, and who begins alternates. Needs torch with CUDA.
"""

import argparse
import statistics
import subprocess
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, KV_HEADS, DIM = 32, 8, 128
REPEATS = 15
PAUSE_SECONDS = 1.0


def median_ms(queue):
    times = []
    for i in range(REPEATS + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        queue()
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def torch_rate(backend, tokens):
    q = torch.randn(1, HEADS, tokens, DIM, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, KV_HEADS, tokens, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    with sdpa_kernel(backend):
        ms = median_ms(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
    return 4 * DIM * HEADS * tokens * (tokens + 1) / 2 / ms / 1e9


def our_rate(bench, tokens):
    printed = subprocess.run([bench, str(tokens), "0"], capture_output=True, text=True, check=True).stdout
    return float(printed.rsplit("TFLOP/s=", 1)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default="build/release/bin/prefill_attention_bench")
    parser.add_argument("--tokens", default="8192,16384,32768")
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    makers = {
        "longhaul": lambda tokens: our_rate(arguments.bench, tokens),
        "cudnn": lambda tokens: torch_rate(SDPBackend.CUDNN_ATTENTION, tokens),
        "flash": lambda tokens: torch_rate(SDPBackend.FLASH_ATTENTION, tokens),
    }
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, TFLOP/s, medians of {arguments.rounds} rounds")
    print(f"{'tokens':>7} {'longhaul':>9} {'cudnn':>7} {'flash':>7} {'ratio':>6}")
    for tokens in map(int, arguments.tokens.split(",")):
        rates = {name: [] for name in makers}
        for turn in range(arguments.rounds):
            for name in list(makers)[:: 1 if turn % 2 == 0 else -1]:
                time.sleep(PAUSE_SECONDS)
                rates[name].append(makers[name](tokens))
        middle = {name: statistics.median(values) for name, values in rates.items()}
        ratio = middle["longhaul"] / max(middle["cudnn"], middle["flash"])
        print(f"{tokens:>7} {middle['longhaul']:>9.1f} {middle['cudnn']:>7.1f} {middle['flash']:>7.1f} {ratio:>6.3f}", flush=True)


if __name__ == "__main__":
    main()
