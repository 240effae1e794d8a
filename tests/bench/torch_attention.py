#!/usr/bin/env python3
"""PyTorch's causal attention on the GPU, Llama-3-8B's heads: cuDNN's and the flash kernel's TFLOP/s, counted as
prefill_attention_bench.cc counts. Needs torch with CUDA.

    python3 tests/bench/torch_attention.py 8192 16384 32768
"""

import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, KV_HEADS, DIM = 32, 8, 128


def median_ms(queue, repeats=15):
    times = []
    for i in range(repeats + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        queue()
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def main():
    for tokens in map(int, sys.argv[1:] or ("8192", "16384", "32768")):
        q = torch.randn(1, HEADS, tokens, DIM, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(1, KV_HEADS, tokens, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        operations = 4 * DIM * HEADS * tokens * (tokens + 1) / 2
        for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            with sdpa_kernel(backend):
                ms = median_ms(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
            print(f"torch {name} tokens={tokens} ms={ms:.3f} TFLOP/s={operations / ms / 1e9:.1f}", flush=True)


if __name__ == "__main__":
    main()
