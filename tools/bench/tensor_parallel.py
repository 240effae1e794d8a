#!/usr/bin/env python3
"""A model of Llama-3-8B's shape on one GPU and cut over two, in turns: decode steps and prompts, and their ratios.

    python3 tools/bench/tensor_parallel.py --bin build/release/bin [--devices 0,1] [--rounds 2] [--json FILE]

Runs cuda_model_bench. Medians of the rounds. The last column is two GPUs again with NCCL_GRAPH_REGISTER=0, under which NCCL does
not register what recorded steps hold. Exits with 1 when a ratio is above its bar.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import sys

import commands

BARS = {"1 x 1024": 0.62, "1 x 8192": 0.62, "prompt 8192": 0.58}
SECONDS = 60
ONE, TWO, UNREGISTERED = "one", "two", "two, unregistered"
STEP = re.compile(r"^ *(\d+) x (\d+) +(\d+\.\d+)", re.MULTILINE)
PROMPT = re.compile(r"^(\d+) +(\d+\.\d+)", re.MULTILINE)


def measure(arguments, variant):
    """{what: ms}; what was measured before it failed, where it did."""
    devices = arguments.devices.split(",")[0] if variant == ONE else arguments.devices
    environment = {**os.environ, "NCCL_NVLS_ENABLE": "0"}
    if variant == UNREGISTERED:
        environment["NCCL_GRAPH_REGISTER"] = "0"
    code, text = commands.run([arguments.bin / "cuda_model_bench", f"--device={devices}", "--operations=false",
                               f"--prompts={arguments.prompts}"], SECONDS, environment)
    if code != 0:
        print(f"{variant}: exit {code}: {text[-1500:]}", flush=True)
    found = {f"{count} x {context}": float(ms) for count, context, ms in STEP.findall(text)}
    return found | {f"prompt {tokens}": float(ms) for tokens, ms in PROMPT.findall(text)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", type=pathlib.Path, help="folder with cuda_model_bench")
    parser.add_argument("--devices", default="0,1")
    parser.add_argument("--prompts", default="512,2048,8192", help="lengths")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", help="where all figures go")
    arguments = parser.parse_args()
    found = {variant: {} for variant in (ONE, TWO, UNREGISTERED)}
    for _ in range(arguments.rounds):
        for variant, times in found.items():
            for what, ms in measure(arguments, variant).items():
                times.setdefault(what, []).append(ms)
    print(f"{'':<14} {'one, ms':>9} {'two, ms':>9} {'ratio':>6} {'bar':>5} {'unregistered, ms':>17}")
    rows, missed = [], not all(what in found[TWO] and what in found[ONE] for what in BARS)
    for what in found[ONE]:
        one, two, unregistered = (statistics.median(found[variant].get(what, [float("nan")])) for variant in found)
        ratio, bar = two / one, BARS.get(what)
        missed = missed or (bar is not None and not ratio <= bar)
        rows.append({"what": what, "one_ms": one, "two_ms": two, "unregistered_ms": unregistered, "ratio": ratio, "bar": bar})
        print(f"{what:<14} {one:>9.3f} {two:>9.3f} {ratio:>6.3f} {bar or '':>5} {unregistered:>17.3f}", flush=True)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows), encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
