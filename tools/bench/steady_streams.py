#!/usr/bin/env python3
"""What arriving long prompts do to streams that run: their time per token alone and beside prompts, in turns within one run.

    python3 tools/bench/random_model.py /dev/shm/llama-8b --context 140000
    python3 tools/bench/steady_streams.py --model /dev/shm/llama-8b [--layouts disaggregated,colocated] [--json FILE]
    python3 tools/bench/steady_streams.py --model TINY --backend cpu --cores 0,1 --streams 4 --stream_tokens 64 \\
        --lengths 2048,8192 --probe_tokens 64 --quiet_seconds 1                                    # does it work?

Streams of short prompts run all the time. A turn is a quiet stretch, then a long prompt, from its request to its first token, each
counted by itself; the next turn comes when the streams have settled. The time per token is every wait between two tokens of a
stream that ended in the stretch, all streams together. Then, for each length, a short prompt comes while a long one computes: its
time to first token, beside its time alone.

The bar is of the layout "disaggregated" on two devices: p99 beside long prompts at most 1.05 of p99 alone.
"""

import argparse
import json
import random
import statistics
import sys
import threading
import time

import layouts
from mixes import PromptText
from quantiles import share
import stream_client

BAR = 1.05
START_SECONDS = 120
SETTLE_SECONDS = 0.1
PROBE_AFTER_SECONDS = 0.05
# A worker learns its speed from the first prompts: they are not counted.
WARM_TURNS = 1


def gaps(times, windows):
    """Milliseconds between two tokens of a stream, of all that ended in one of the windows."""
    return [1e3 * (b - a) for stream in times for a, b in zip(stream, stream[1:])
            if any(begin <= b <= end for begin, end in windows)]


def summary(milliseconds):
    return {"tokens": len(milliseconds), "p50_ms": share(milliseconds, 0.5), "p99_ms": share(milliseconds, 0.99),
            "max_ms": max(milliseconds), "mean_ms": statistics.fmean(milliseconds)}


class Turns:
    """What happened when, while the streams ran."""

    def __init__(self, cluster, text, arguments):
        self._cluster, self._text, self._arguments = cluster, text, arguments
        self._random = random.Random(arguments.seed)

    def prompt(self, tokens):
        return "[" + self._text.tokens(self._random.random(), tokens)[:-1] + "]"

    def ask(self, tokens):
        """(begin, end) of a prompt's time to first token."""
        request = stream_client.FirstToken(self._cluster.router, self.prompt(tokens))
        return request.sent, request.came

    def quiet(self):
        begin = time.monotonic()
        time.sleep(self._arguments.quiet_seconds)
        return begin, time.monotonic()

    def probe(self, length):
        """Seconds to the first token of a short prompt that comes while a long one computes."""
        long_prompt = threading.Thread(target=self.ask, args=(length,))
        long_prompt.start()
        time.sleep(PROBE_AFTER_SECONDS)
        begin, end = self.ask(self._arguments.probe_tokens)
        beside = long_prompt.is_alive()
        long_prompt.join()
        return end - begin, beside


def measure(cluster, text, arguments):
    turns = Turns(cluster, text, arguments)
    streams = [turns.prompt(arguments.stream_tokens) for _ in range(arguments.streams)]
    watch = stream_client.StreamWatch(cluster.router, streams, arguments.stream_output)
    watch.wait_started(START_SECONDS)
    lengths = [int(word) for word in arguments.lengths.split(",")]
    repeats = [int(word) for word in arguments.repeats.split(",")]
    alone, beside = {}, {}
    for length, count in zip(lengths, repeats):
        alone[length], beside[length] = [], []
        for i in range(count + WARM_TURNS):
            quiet = turns.quiet()
            disturbed = turns.ask(length)
            time.sleep(SETTLE_SECONDS)
            if i >= WARM_TURNS:
                alone[length].append(quiet)
                beside[length].append(disturbed)
    probe_alone = [end - begin for begin, end in (turns.ask(arguments.probe_tokens) for _ in range(5))]
    probes = {length: [turns.probe(length) for _ in range(min(count, 3))] for length, count in zip(lengths, repeats)}
    times = watch.finish()
    if max(map(len, times)) >= arguments.stream_output:
        raise RuntimeError(f"a stream ended before the measurement did: ask for more than --stream_output={arguments.stream_output}")
    figures = {"layout": cluster.layout, "devices": cluster.devices, "streams": arguments.streams,
               "probe_tokens": arguments.probe_tokens, "probe_alone_ms": 1e3 * statistics.median(probe_alone), "lengths": []}
    for length in lengths:
        row = {"tokens": length, "alone": summary(gaps(times, alone[length])), "beside": summary(gaps(times, beside[length])),
               "ttft_ms": [1e3 * (end - begin) for begin, end in beside[length]],
               "probe_ms": [1e3 * seconds for seconds, still in probes[length] if still]}
        row["p99_ratio"] = row["beside"]["p99_ms"] / row["alone"]["p99_ms"]
        figures["lengths"].append(row)
    return figures


def show(figures):
    print(f"{figures['layout']} on {figures['devices']} device(s), {figures['streams']} streams; a prompt of "
          f"{figures['probe_tokens']} tokens alone: {figures['probe_alone_ms']:.1f} ms\n"
          " prompt |  alone: p50     p99     max | beside: p50     p99     max | p99 ratio | TTFT p50 | short prompt beside, p50, ms")
    for row in figures["lengths"]:
        alone, beside = row["alone"], row["beside"]
        probe = f"{statistics.median(row['probe_ms']):.1f}" if row["probe_ms"] else "the long one was done"
        print(f"{row['tokens']:>7} | {alone['p50_ms']:>11.2f} {alone['p99_ms']:>7.2f} {alone['max_ms']:>7.2f} | "
              f"{beside['p50_ms']:>11.2f} {beside['p99_ms']:>7.2f} {beside['max_ms']:>7.2f} | {row['p99_ratio']:>9.3f} | "
              f"{statistics.median(row['ttft_ms']):>8.0f} | {probe}", flush=True)


def missed(all_figures):
    return [(figures["layout"], row["tokens"], row["p99_ratio"]) for figures in all_figures
            if figures["layout"] == "disaggregated" and figures["devices"] > 1
            for row in figures["lengths"] if row["p99_ratio"] > BAR]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    layouts.add_arguments(parser)
    parser.add_argument("--layouts", default="disaggregated,colocated", help=f"some of {', '.join(layouts.LAYOUTS)}")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--stream_tokens", type=int, default=1024, help="prompt of each stream")
    parser.add_argument("--stream_output", type=int, default=20000, help="tokens that a stream may have in the whole run")
    parser.add_argument("--lengths", default="32768,65536,131072", help="tokens of the long prompts")
    parser.add_argument("--repeats", default="6,3,2", help="prompts of each length")
    parser.add_argument("--quiet_seconds", type=float, default=2.0)
    parser.add_argument("--probe_tokens", type=int, default=512, help="the short prompt that comes beside a long one")
    arguments = parser.parse_args()
    if not arguments.model:
        parser.error("--model is missing")
    text = PromptText(layouts.config_of(arguments.model)["vocab_size"], arguments.seed)
    all_figures = []
    with layouts.service(arguments) as environment:
        for layout in arguments.layouts.split(","):
            with layouts.started(layout, arguments, environment) as cluster:
                try:
                    all_figures.append(measure(cluster, text, arguments))
                except Exception:
                    cluster.show_logs(sys.stderr)
                    raise
            show(all_figures[-1])
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(all_figures, file)
    for layout, tokens, ratio in missed(all_figures):
        print(f"missed: {layout}, {tokens} tokens: p99 {ratio:.3f} times that alone, bar {BAR}")
    return 1 if missed(all_figures) else 0


if __name__ == "__main__":
    sys.exit(main())
