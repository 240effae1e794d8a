#!/usr/bin/env python3
"""What a hand-off costs: router, prefill worker and decode worker as processes on one GPU or on two, seen by a client.

    python3 tools/bench/random_model.py /dev/shm/llama-8b
    python3 tools/bench/hand_off.py --model /dev/shm/llama-8b --bin build/release/bin [--mps] [--json FILE]
    python3 tools/bench/hand_off.py --model /dev/shm/llama-8b --decode_device 1 [--kv_transport nccl]
    python3 tools/bench/hand_off.py --model TINY --backend cpu --lengths 128,512        # does it work?

A second decode worker grants nothing: what a prefill worker computes for it is never sent, and stays in the prefill worker's
cache. That separates what else happens on a shared GPU from the hand-off itself:

  * "alone" is the prompt's compute on the prefill worker with its KV thrown away. Hand-off beyond prefill is the client's time to
    first token less the median of these, so it holds HTTP, router, messages, exposed KV, the decode worker's first step, and what
    streaming slows prefill by. Both are measured in turns.
  * A prompt that the prefill worker has cached is all hand-off and no compute: the KV's rate from process to process, and the gap
    that it makes in running streams, are measured with such prompts. The disturbance by prefill's compute is shown beside it,
    once with its KV thrown away and once handed off.

Two processes share a GPU in time slices unless MPS runs; --mps starts it. On two GPUs the second decode worker, which computes
nothing, is beside the first: NCCL joins no two processes on one GPU. Bars: docs/PERFORMANCE.md.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time

from quantiles import share
import stream_client
import worker_processes

BARS = {"beyond_p50_ms": 8.0, "beyond_p99_ms": 15.0, "not_decode_ms": 5.0, "gap_ms": 1.5, "slowed": 0.03, "kv_share": 0.8}
TWO_DEVICES_BARS = BARS | {"slowed": 0.02}
PARTS = ("queue", "prefill", "transfer", "first_decode")
STREAMS, STREAM_TOKENS, STREAM_OUTPUT = 8, 1024, 6000
CACHED_TOKENS = 8192
# Steps of a prefill worker are over when none has ended for so long; a chunk takes less.
QUIET_SECONDS = 0.16
WORKER_FLAGS = {
    "cuda": {"all": ["--backend=cuda"], "prefill": ["--kv_bytes=34000000000"], "decode": ["--kv_bytes=24000000000"],
             "null": ["--kv_bytes=9000000000"], "chunk_tokens": 2048},
    "cpu": {"all": ["--backend=cpu", "--block_tokens=64"], "prefill": ["--kv_bytes=400000000"], "decode": ["--kv_bytes=400000000"],
            "null": ["--kv_bytes=400000000"], "chunk_tokens": 512},
}


class Bench:
    def __init__(self, host, arguments):
        self._random = random.Random(arguments.seed)
        self._vocab = arguments.vocab
        flags = WORKER_FLAGS[arguments.backend]
        every = [*flags["all"], f"--kv_transport={arguments.kv_transport}", *arguments.worker_flags.split()]
        decode_device = f"--device={arguments.decode_device}"
        self.prefill = host.start("prefill", "prefill", *flags["prefill"], f"--device={arguments.prefill_device}", *every,
                                  *arguments.prefill_flags.split())
        self.decode = host.start("decode", "decode", *flags["decode"], decode_device, *every, *arguments.decode_flags.split(),
                                 f"--chunk_tokens={arguments.chunk_tokens}")
        null = host.start("decode", "null", *flags["null"], decode_device, *every, "--window_chunks=0")
        host.wait(self.prefill, self.decode, null)
        self._router = host.start_router("router", self.prefill, self.decode).http
        self._null_router = host.start_router("null-router", self.prefill, null).http

    def prompt(self, kv_tokens):
        """One token more: KV of the last is the decode worker's own step."""
        return [self._random.randrange(2, self._vocab) for _ in range(kv_tokens + 1)]

    def steps(self):
        """Steps that the prefill worker has ended, and their milliseconds."""
        metrics = self.prefill.metrics()
        return metrics["longhaul_worker_step_seconds_count", ()], 1e3 * metrics["longhaul_worker_step_seconds_sum", ()]

    def parts(self):
        """Milliseconds so far of each part of the first tokens of the decode worker."""
        total = dict.fromkeys(PARTS, 0.0)
        for (name, labels), value in self.decode.metrics().items():
            if name == "longhaul_worker_first_token_part_seconds_sum":
                total[dict(labels)["part"]] += 1e3 * value
        return total

    def compute_only(self, *prompts):
        """Has the prefill worker compute them for nobody; their milliseconds together, and when it began and ended."""
        before_count, before_ms = self.steps()
        with contextlib.ExitStack() as stack:
            began = time.monotonic()
            for prompt in prompts:
                connection = stack.enter_context(contextlib.closing(stream_client.connect(self._null_router)))
                connection.sendall(stream_client.request_bytes(self._null_router, prompt, 1))
            count, ms, ended = before_count, before_ms, began
            while count == before_count or time.monotonic() - ended < QUIET_SECONDS:
                time.sleep(0.02)
                now_count, now_ms = self.steps()
                if now_count != count:
                    count, ms, ended = now_count, now_ms, time.monotonic()
        time.sleep(0.05)  # the cancel on its way down
        return ms - before_ms, began, ended

    def hand_off(self, prompt):
        """(request, its parts in ms, prefill's ms) of a prompt through the router."""
        parts, (_, step_ms) = self.parts(), self.steps()
        request = stream_client.FirstToken(self._router, prompt)
        time.sleep(0.02)
        after, (_, step_ms_after) = self.parts(), self.steps()
        return request, {part: after[part] - parts[part] for part in PARTS}, step_ms_after - step_ms

    def watch(self):
        return stream_client.StreamWatch(self._router, [self.prompt(STREAM_TOKENS) for _ in range(STREAMS)], STREAM_OUTPUT)


def measure_length(bench, length, repeats):
    alone, rows = [], []
    bench.compute_only(bench.prompt(length))
    bench.hand_off(bench.prompt(length))
    every = max(1, repeats // 6)
    for i in range(repeats):
        if i % every == 0:
            alone.append(bench.compute_only(bench.prompt(length))[0])
        rows.append(bench.hand_off(bench.prompt(length)))
    alone_ms = statistics.median(alone)
    beyond = [request.ms - alone_ms for request, _, _ in rows]
    median = {part: statistics.median(parts[part] for _, parts, _ in rows) for part in PARTS}
    figures = {
        "tokens": length, "repeats": repeats, "alone_ms": alone_ms, "ttft_ms": statistics.median(r.ms for r, _, _ in rows),
        "beyond_p50_ms": statistics.median(beyond), "beyond_p99_ms": share(beyond, 0.99), "beyond_ms": beyond, "alone_all_ms": alone,
        "not_decode_ms": statistics.median(b - parts["first_decode"] for b, (_, parts, _) in zip(beyond, rows)),
        "slowed": statistics.median(ms for _, _, ms in rows) / alone_ms - 1,
        "kv_ms": statistics.median(float(request.headers["x-longhaul-kv-ms"]) for request, _, _ in rows),
        "kv_bytes": int(rows[0][0].headers["x-longhaul-kv-bytes"]), **{f"{part}_ms": median[part] for part in PARTS},
        "outside_ms": statistics.median(request.ms - sum(parts.values()) for request, parts, _ in rows),
    }
    print(f"{length:>6} {repeats:>4} {alone_ms:>9.2f} {figures['ttft_ms']:>9.2f} | {figures['beyond_p50_ms']:>6.2f} "
          f"{figures['beyond_p99_ms']:>6.2f} {figures['not_decode_ms']:>6.2f} {figures['slowed']:>+7.2%} | "
          + " ".join(f"{median[part]:>8.2f}" for part in PARTS) + f" {figures['outside_ms']:>7.2f}", flush=True)
    return figures


def measure_rate(bench, repeats):
    """KV of cached prompts, from process to process."""
    prompts = [bench.prompt(CACHED_TOKENS) for _ in range(repeats)]
    bench.compute_only(*prompts)
    rows = [bench.hand_off(prompt) for prompt in prompts]
    kv_bytes = int(rows[0][0].headers["x-longhaul-kv-bytes"])
    fill = [sum(parts.values()) - parts["first_decode"] for _, parts, _ in rows]
    figures = {
        "tokens": CACHED_TOKENS, "repeats": repeats, "kv_bytes": kv_bytes, "fill_ms": fill, "prefill_ms": [ms for _, _, ms in rows],
        "kv_ms": [float(request.headers["x-longhaul-kv-ms"]) for request, _, _ in rows], "ttft_ms": [r.ms for r, _, _ in rows],
        "fill_gb_per_s": kv_bytes / statistics.median(fill) / 1e6,
    }
    print(f"cached {CACHED_TOKENS}: {kv_bytes / 1e6:.0f} MB in {statistics.median(fill):.2f} ms from asking to whole "
          f"({figures['fill_gb_per_s']:.0f} GB/s), first to last chunk {statistics.median(figures['kv_ms']):.2f} ms, "
          f"TTFT {statistics.median(figures['ttft_ms']):.2f} ms", flush=True)
    return figures


def gaps(times, windows, usual):
    """For each window: the longest wait for a token that ended in it, less a usual step; the median of the streams."""
    found = []
    for begin, end in windows:
        longest = [max([b - a for a, b in zip(stream, stream[1:]) if begin <= b <= end + 3 * usual], default=0) for stream in times]
        found.append(1e3 * (statistics.median(longest) - usual))
    return found


def measure_gap(bench, repeats):
    cached = [bench.prompt(CACHED_TOKENS) for _ in range(repeats)]
    bench.compute_only(*cached)
    watch = bench.watch()
    time.sleep(2.5)  # their own prompts
    windows = {"quiet": [], "hand-off": [], "compute alone": [], "compute and hand-off": []}
    quiet_begin = time.monotonic()
    for _ in range(repeats):
        begin = time.monotonic()
        time.sleep(0.06)
        windows["quiet"].append((begin, time.monotonic()))
    quiet_end = time.monotonic()
    for prompt in cached:
        request, _, _ = bench.hand_off(prompt)
        windows["hand-off"].append((request.sent, request.came))
        time.sleep(0.1)
    for _ in range(4):
        _, begin, end = bench.compute_only(bench.prompt(CACHED_TOKENS))
        windows["compute alone"].append((begin, end))
        time.sleep(0.1)
        request, _, _ = bench.hand_off(bench.prompt(CACHED_TOKENS))
        windows["compute and hand-off"].append((request.sent, request.came))
        time.sleep(0.1)
    times = watch.finish()
    usual = statistics.median(b - a for stream in times for a, b in zip(stream, stream[1:]) if quiet_begin <= b <= quiet_end)
    figures = {"usual_step_ms": 1e3 * usual, "streams": STREAMS}
    for name, spans in windows.items():
        found = gaps(times, spans, usual)
        figures[name] = found
        steps = [1e3 * (b - a) for stream in times for a, b in zip(stream, stream[1:]) for begin, end in spans if begin <= b <= end]
        print(f"gap, {name:<20}: p50 {statistics.median(found):6.2f} p99 {share(found, 0.99):6.2f} ms above the usual step of "
              f"{1e3 * usual:.2f} ms (mean step there {statistics.fmean(steps):.2f})", flush=True)
    return figures


def measure_link(arguments, environment, size):
    """GB/s of our link alone."""
    command = [os.path.join(arguments.bin, "transport_bench"), f"--bytes={size}", "--messages=2000", "--buffers=32",
               f"--memory={'cuda' if arguments.backend == 'cuda' else 'host'}", f"--device={arguments.decode_device}",
               f"--sender_device={arguments.prefill_device}", f"--kv_transport={arguments.kv_transport}"]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def run(arguments, environment):
    lengths = [int(word) for word in arguments.lengths.split(",")]
    repeats = [int(word) for word in arguments.repeats.split(",")]
    figures = {"mps": arguments.mps, "devices": [arguments.prefill_device, arguments.decode_device],
               "kv_transport": arguments.kv_transport, "lengths": []}
    with worker_processes.Host(arguments.bin, arguments.model, environment) as host:
        began = time.monotonic()
        bench = Bench(host, arguments)
        print(f"started in {time.monotonic() - began:.1f} s, MPS: {arguments.mps}, prefill and decode on device "
              f"{arguments.prefill_device} and {arguments.decode_device}, KV over {arguments.kv_transport}", flush=True)
        try:
            print("tokens    n     alone      TTFT | beyond    p99 not-dec  slowed |    queue  prefill transfer   decode outside   ms")
            for length, count in zip(lengths, repeats):
                figures["lengths"].append(measure_length(bench, length, count))
            figures["rate"] = measure_rate(bench, arguments.cached)
            figures["gap"] = measure_gap(bench, arguments.cached)
        except Exception:
            for process in (bench.prefill, bench.decode):
                print(process.log.read_text()[-1500:], file=sys.stderr)
            raise
    unit = arguments.chunk_tokens or WORKER_FLAGS[arguments.backend]["chunk_tokens"]  # the decode worker's own choice
    chunk_bytes = figures["rate"]["kv_bytes"] // CACHED_TOKENS * unit // arguments.layers
    figures["link"] = measure_link(arguments, environment, chunk_bytes)
    print(f"link alone, {chunk_bytes / (1 << 20):g} MiB a message: {figures['link']['gb_per_s']:.0f} GB/s over "
          f"{figures['link']['path']}", flush=True)
    return figures


def judge(figures):
    """(what, reached, bar) of all that was missed."""
    bars = BARS if len(set(figures["devices"])) == 1 else TWO_DEVICES_BARS
    found = [(f"{row['tokens']} tokens: {name}", row[name], bars[name])
             for row in figures["lengths"] for name in ("beyond_p50_ms", "beyond_p99_ms", "not_decode_ms", "slowed")]
    found.append(("gap p50", statistics.median(figures["gap"]["hand-off"]), bars["gap_ms"]))
    missed = [row for row in found if row[1] > row[2]]
    kv_share = figures["rate"]["fill_gb_per_s"] / figures["link"]["gb_per_s"]
    return missed + ([("share of the link's rate", kv_share, bars["kv_share"])] if kv_share < bars["kv_share"] else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bin", default="build/release/bin", help="folder with longhaul_* and transport_bench")
    parser.add_argument("--backend", choices=WORKER_FLAGS, default="cuda")
    parser.add_argument("--prefill_device", type=int, default=0, help="CUDA's number of the prefill worker's GPU")
    parser.add_argument("--decode_device", type=int, default=0)
    parser.add_argument("--kv_transport", choices=("ucx", "nccl"), default="ucx", help="what carries KV; nccl needs two GPUs")
    parser.add_argument("--mps", action="store_true", help="run CUDA's MPS for the processes")
    parser.add_argument("--lengths", default="128,2048,8192,32768", help="KV tokens of the prompts")
    parser.add_argument("--repeats", default="100,60,30,12", help="hand-offs of each length")
    parser.add_argument("--cached", type=int, default=16, help="hand-offs of cached prompts, for the rate and for the gap")
    parser.add_argument("--worker_flags", default="", help="more flags for all workers")
    parser.add_argument("--prefill_flags", default="")
    parser.add_argument("--decode_flags", default="")
    parser.add_argument("--chunk_tokens", type=int, default=0,
                        help="tokens of the decode worker's transfer unit; 0: its own choice")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="where all figures go")
    arguments = parser.parse_args()
    with open(os.path.join(arguments.model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    arguments.vocab, arguments.layers = config["vocab_size"], config["num_hidden_layers"]
    service = worker_processes.multi_process_service() if arguments.mps else contextlib.nullcontext(dict(os.environ))
    with service as environment:
        figures = run(arguments, environment)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file)
    missed = judge(figures)
    for what, reached, bar in missed:
        print(f"missed: {what}: {reached:.3g}, bar {bar:g}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
