#!/usr/bin/env python3
"""Goodput of layouts: the highest rate of requests at which 90% of them keep their service level, for each GPU.

    python3 tools/bench/random_model.py /dev/shm/llama-8b --context 140000
    python3 tools/bench/goodput.py --model /dev/shm/llama-8b --mix azure --duration 30 --seconds_max 500 [--json FILE]
    python3 tools/bench/goodput.py --model /dev/shm/llama-8b --mix mooncake --trace conversation_trace.jsonl
    python3 tools/bench/goodput.py --simulate --mix mooncake --duration 300          # no device, its time by a cost model
    python3 tools/bench/goodput.py --model TINY --backend cpu --cores 0,1 --mix mooncake --length_scale 0.03 --time_scale 3 \\
        --duration 10 --rate 2                                                                     # does it work?

Requests of a mix (mixes.py) come at random times, Poisson at the rate, whatever has become of the others (open loop). All rates and
layouts see the same requests with the same gaps, scaled; no two steps share a prefix. A request keeps its service level when its
first token comes within 0.5 s of when it was due (short prompts) or within 3 times what such a prompt takes alone (long ones,
measured first, on the first layout, nothing cached), and its tokens after the first take 25 ms in the mean. Refused, failed and
unfinished ones do not. The first --warmup seconds of a step are not counted.

The layouts: "disaggregated", a prefill and a decode worker, and "two-colocated", two workers that both do both, behind the same
router. Bar: the first has 1.3 times the goodput of the second.
"""

import argparse
import collections
import contextlib
import itertools
import json
import math
import random
import sys
import time

import layouts
import mixes
import open_loop
from quantiles import share
import service_level
from simulated import SimulatedCluster
import stream_client

BAR = 1.3
IDEAL_TOKENS = (128, 1024, 4096, 16384, 49152, 122880)
IDEAL_REPEATS = 3
IDEAL_SLOW_SECONDS = 1.0
IDEAL_LOOKS_AT = 3000  # requests of the mix
# The layouts after the first compute as many of the shortest lengths, to learn their speed.
WARM_LENGTHS = 3
REST_SECONDS = 0.5
SIMULATED_CONFIG = {"max_position_embeddings": 140000}


class Load:
    """The requests of a mix, in the model's context and the arguments' scale."""

    def __init__(self, arguments):
        self._arguments = arguments
        self.room = arguments.config["max_position_embeddings"] - 1

    def _series(self):
        """Endless, but for a trace."""
        if not self._arguments.trace:
            return mixes.MIXES[self._arguments.mix](self._arguments.seed)
        with open(self._arguments.trace, encoding="utf-8") as file:
            return iter(list(mixes.TRACES[self._arguments.mix](file)))

    def tokens(self, request):
        """Prompt and output."""
        return (mixes.scaled(request.prompt_tokens, self._arguments.length_scale),
                mixes.scaled(request.output_tokens, self._arguments.output_scale))

    def arrivals(self, rate):
        """[(seconds, request)] of one step; those longer than the model's context are left out."""
        draw = random.Random(self._arguments.seed)
        fitting = (request for request in self._series() if sum(self.tokens(request)) <= self.room)
        due, found = 0.0, []
        for request in fitting:
            due += draw.expovariate(1.0) / rate
            if due > self._arguments.duration:
                return found
            found.append((due, request))
        return found

    def ideal_lengths(self):
        """Prompts to be measured alone, up to the longest of the mix: two at least."""
        some = itertools.islice(self._series(), IDEAL_LOOKS_AT)
        longest = min(max(self.tokens(request)[0] for request in some), self.room - 1)
        lengths = [mixes.scaled(tokens, self._arguments.length_scale) for tokens in IDEAL_TOKENS]
        return sorted({min(tokens, longest) for tokens in lengths} | {longest})


class RealCluster:
    """Processes of this host, asked over HTTP."""

    def __init__(self, cluster, load, arguments):
        self.layout, self.devices = cluster.layout, cluster.devices
        self._router, self._load, self._arguments = cluster.router, load, arguments
        self._text = mixes.PromptText(arguments.config["vocab_size"], arguments.seed)
        self._salts = itertools.count()

    def answers(self, arrivals):
        """Of [(seconds, MixRequest)], in order."""
        salt = next(self._salts)
        scale = self._arguments.length_scale
        messages = [(due, stream_client.request_bytes(self._router, self._text.prompt(request, salt, scale),
                                                      self._load.tokens(request)[1])) for due, request in arrivals]
        answers = open_loop.ask_all(self._router, messages, self._arguments.drain)
        time.sleep(REST_SECONDS)  # for the cut-off ones' memory
        return answers

    def alone(self, tokens):
        """Seconds to the first token of a prompt alone, the fastest of some; of a slow one, the first."""
        fastest, left = math.inf, IDEAL_REPEATS
        while left > 0:
            prompt = self._text.tokens((next(self._salts), tokens), tokens)
            fastest = min(fastest, stream_client.FirstToken(self._router, f"[{prompt[:-1]}]").ms / 1e3)
            left = left - 1 if fastest < IDEAL_SLOW_SECONDS else 0
        return fastest


def count(level, load, arrivals, answers, warmup):
    """The figures of one step."""
    verdicts = {"short": collections.Counter(), "long": collections.Counter()}
    short_first, long_first, paces = [], [], []
    for (due, request), answer in zip(arrivals, answers):
        if due < warmup:
            continue
        prompt_tokens, output_tokens = load.tokens(request)
        kind = "long" if level.is_long(prompt_tokens) else "short"
        verdicts[kind][service_level.verdict(level, answer, prompt_tokens, output_tokens)] += 1
        if not answer.first:
            continue
        first = service_level.time_to_first_token(answer)
        if kind == "short":
            short_first.append(first)
        else:
            long_first.append(first / level.ideal.seconds(prompt_tokens))
        pace = service_level.time_per_token(answer, output_tokens)
        if pace is not None:
            paces.append(pace)
    total = sum(verdicts.values(), collections.Counter())

    def percentiles(values):
        return [share(values, part) if values else None for part in (0.5, 0.9, 0.99)]

    def attainment(counter):
        return counter["met"] / counter.total() if counter.total() else None

    late = [answer.late for answer in answers]
    return {
        "requests": total.total(), "attainment": attainment(total) or 0.0,
        "short_attainment": attainment(verdicts["short"]), "long_attainment": attainment(verdicts["long"]),
        "verdicts": {kind: dict(counter) for kind, counter in verdicts.items()},
        "short_first_s": percentiles(short_first), "long_first_ideals": percentiles(long_first), "token_s": percentiles(paces),
        "late_p99_s": share(late, 0.99), "late_max_s": max(late),
        "errors": sorted({answer.error for answer in answers if answer.error})[:3],
    }


def words(value, form):
    return "   -" if value is None else format(value, form)


def show_step(rate, figures):
    short, long_ones, pace = figures["short_first_s"], figures["long_first_ideals"], figures["token_s"]
    verdicts = collections.Counter()
    for counter in figures["verdicts"].values():
        verdicts.update(counter)
    kept = " ".join(words(figures[name], "4.0%") for name in ("attainment", "short_attainment", "long_attainment"))
    print(f"{rate:>7.3f} {figures['requests']:>5} | {kept} | "
          + " ".join(words(value and 1e3 * value, "6.0f") for value in short) + " | "
          + " ".join(words(value, "5.2f") for value in long_ones) + " | "
          + " ".join(words(value and 1e3 * value, "6.1f") for value in pace)
          + f" | {verdicts['refused']:>3} {verdicts['failed']:>3} {verdicts['unfinished']:>3} | "
          f"{1e3 * figures['late_p99_s']:.1f} {1e3 * figures['late_max_s']:.1f}", flush=True)
    for error in figures["errors"]:
        print(f"        {error}", flush=True)


def step(cluster, load, level, rate, arguments):
    arrivals = load.arrivals(rate)
    if not [due for due, _ in arrivals if due >= arguments.warmup]:
        raise RuntimeError(f"no request in a step of {arguments.duration:g} s at {rate:.3f} a second: raise --duration or --rate")
    answers = cluster.answers(arrivals)
    return count(level, load, arrivals, answers, arguments.warmup)


def search(cluster, load, level, arguments, give_up):
    """Steps of one layout until its goodput is found, or time is up."""
    found = service_level.RateSearch(arguments.rate, resolution=arguments.resolution)
    rates = iter(map(float, arguments.rates.split(","))) if arguments.rates else iter(lambda: found.rate, None)
    steps = []
    print(f"{cluster.layout}, {cluster.devices} device(s)\n   rate     n | kept: all short long | short TTFT p50 90 99 ms | "
          "long, ideals   | per token p50 90 99 ms | refused failed unfinished | client late p99 max ms", flush=True)
    for rate in rates:
        if not arguments.simulate and time.monotonic() + arguments.duration + arguments.drain > give_up:
            print("time is up", flush=True)
            break
        figures = step(cluster, load, level, rate, arguments)
        steps.append({"rate": rate, **figures})
        show_step(rate, figures)
        if not arguments.rates:
            found.add(figures["attainment"])
    if arguments.rates:
        kept = [row["rate"] for row in steps if row["attainment"] >= service_level.ATTAINMENT]
        best, missed = max(kept, default=0.0), None
    else:
        best, missed = found.best, found.least_missed
    print(f"{cluster.layout}: goodput {best:.3f} requests/s, {best / cluster.devices:.3f} a device"
          + ("" if missed is None else f" (missed at {missed:.3f})"), flush=True)
    return {"layout": cluster.layout, "devices": cluster.devices, "goodput": best, "steps": steps}


@contextlib.contextmanager
def started(layout, load, arguments, environment):
    if arguments.simulate:
        yield SimulatedCluster(layout, arguments)
        return
    with layouts.started(layout, arguments, environment) as cluster:
        try:
            yield RealCluster(cluster, load, arguments)
        except Exception:
            cluster.show_logs(sys.stderr)
            raise


def service_level_of(ideal, arguments):
    usual = service_level.ServiceLevel
    return usual(service_level.Ideal(ideal), round(arguments.long_tokens * arguments.length_scale),
                 usual.short_seconds * arguments.time_scale, token_seconds=usual.token_seconds * arguments.time_scale)


def run(arguments, environment):
    began = time.monotonic()
    load = Load(arguments)
    names = arguments.layouts.split(",")
    level, results = None, []
    for i, layout in enumerate(names):
        # Each layout has its share of the time left, its start included.
        now = time.monotonic()
        give_up = now + (began + arguments.seconds_max - now) / (len(names) - i)
        with started(layout, load, arguments, environment) as cluster:
            lengths = load.ideal_lengths()[:WARM_LENGTHS if level else None]
            ideal = [(tokens, cluster.alone(tokens)) for tokens in lengths]
            level = level or service_level_of(ideal, arguments)
            print(f"alone: {', '.join(f'{tokens} tokens {1e3 * seconds:.0f} ms' for tokens, seconds in ideal)}", flush=True)
            results.append(search(cluster, load, level, arguments, give_up) | {"alone": ideal})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    layouts.add_arguments(parser)
    parser.add_argument("--layouts", default="disaggregated,two-colocated", help=f"some of {', '.join(layouts.LAYOUTS)}")
    parser.add_argument("--mix", choices=mixes.MIXES, default="mooncake")
    parser.add_argument("--trace", help="the mix's trace itself, in its published format")
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second of the first step")
    parser.add_argument("--rates", default="", help="the steps' rates; empty: a search")
    parser.add_argument("--resolution", type=float, default=1.08, help="the search ends when kept and missed are so near")
    parser.add_argument("--duration", type=float, default=30, help="seconds in which a step's requests come")
    parser.add_argument("--warmup", type=float, default=5, help="seconds of a step that are not counted")
    parser.add_argument("--drain", type=float, default=15, help="seconds until a step's last answers are cut off")
    parser.add_argument("--seconds_max", type=float, default=540, help="of all; no step begins that would last longer")
    parser.add_argument("--long_tokens", type=int, default=8192, help="a prompt with more is long")
    parser.add_argument("--length_scale", type=float, default=1, help="times the mix's prompts and --long_tokens")
    parser.add_argument("--output_scale", type=float, default=1, help="times the mix's answers")
    parser.add_argument("--time_scale", type=float, default=1, help="times the service level's times, on slow machines")
    parser.add_argument("--simulate", action="store_true", help="in simulated time (longhaul_load_sim), without a device")
    parser.add_argument("--simulate_flags", default="", help="more for longhaul_load_sim, as --spill_slowdown=3")
    arguments = parser.parse_args()
    if not arguments.simulate and not arguments.model:
        parser.error("--model is missing, or --simulate")
    if arguments.simulate and (arguments.length_scale, arguments.output_scale) != (1, 1):
        parser.error("--simulate takes the mix as it is")
    arguments.config = SIMULATED_CONFIG if arguments.simulate else layouts.config_of(arguments.model)
    with layouts.service(arguments) as environment:
        results = run(arguments, environment)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"mix": arguments.mix, "results": results}, file)
    goodput = {row["layout"]: row["goodput"] / row["devices"] for row in results}
    if not all(goodput.get(name) for name in ("disaggregated", "two-colocated")):
        return 0
    ratio = goodput["disaggregated"] / goodput["two-colocated"]
    print(f"disaggregated / two-colocated: {ratio:.2f}, bar {BAR}")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
