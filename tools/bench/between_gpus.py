#!/usr/bin/env python3
"""KV from GPU to GPU, beside what a plain copy between them reaches in the same run.

    python3 tools/bench/between_gpus.py --bin build/release/bin [--sender_device 0] [--device 1] [--rounds 2] [--json FILE]

Two processes, one on each GPU; KV of 8,192 tokens of Llama-3-8B's shape, 1 GiB, lies in one allocation on both sides, and goes
over as messages of a layer and so many tokens, --times over. A message is in one piece, or in as many as it has blocks of 64
tokens, none beside the other, which is the worst that a pool can do. The ceiling is the fastest copy of any size. The best of
several rounds counts, for what else a machine does only makes it slower. Exits with 1 when the workers' own message size, in one
piece, has less than --bar of the ceiling over one of the transports.
"""

import argparse
import json
import pathlib
import sys

import commands

KV_BYTES = 8192 * 131072
TOKEN_BYTES = 4096  # of a layer
BLOCK_TOKENS = 64
UNIT_TOKENS = 2048  # the workers' transfer unit on a GPU
WINDOW = 128  # four units of 32 layers, as decode workers grant
CEILING_SECONDS, LINK_SECONDS = 60, 25
# (tokens of a message, pieces)
SHAPES = ((UNIT_TOKENS, 1), (512, 1), (8192, 1), (UNIT_TOKENS, UNIT_TOKENS // BLOCK_TOKENS))
# (transport, more flags, shapes)
LINKS = (("ucx", (), SHAPES), ("nccl", (), SHAPES), ("nccl", ("--nccl_blocks=32",), SHAPES[:1]))


def objects(text):
    """The JSON objects of a program that prints one a line."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def ceiling(folder, arguments):
    """Rows of peer_bench; ends when it fails."""
    code, text = commands.run([folder / "peer_bench", f"--device={arguments.sender_device}", f"--peer={arguments.device}"],
                              CEILING_SECONDS)
    rows = [row for row in objects(text) if "what" in row]
    print(f"{'plain':<22} {'MiB':>6} {'one way':>8} {'both':>8}   GB/s")
    for what in ("copy", "nccl"):
        for size in sorted({row["bytes"] for row in rows}):
            by_ways = {row["ways"]: row["gb_per_s"] for row in rows if row["what"] == what and row["bytes"] == size}
            print(f"{what:<22} {size / (1 << 20):>6g} {by_ways.get(1, 0):>8.1f} {by_ways.get(2, 0):>8.1f}", flush=True)
    if code != 0:
        sys.exit(f"peer_bench ended with {code}: {text[-500:]}")
    return rows


def measure(folder, arguments, transport, flags, tokens, pieces):
    """The best of several rounds, with an error's text where one failed."""
    message = tokens * TOKEN_BYTES
    buffers = KV_BYTES // message
    command = [folder / "transport_bench", f"--memory={arguments.memory}", f"--kv_transport={transport}",
               f"--device={arguments.device}", f"--sender_device={arguments.sender_device}", f"--bytes={message}",
               f"--pieces={pieces}", f"--buffers={buffers}", f"--messages={arguments.times * buffers}",
               f"--window={min(WINDOW, buffers)}", *flags]
    row = {"transport": transport, "flags": list(flags), "tokens": tokens, "bytes": message, "pieces": pieces}
    best = 0.0
    for _ in range(arguments.rounds):
        code, text = commands.run(command, LINK_SECONDS)
        found = objects(text)
        if code == 0 and found:
            best, row["path"] = max(best, found[0]["gb_per_s"]), found[0]["path"]
        else:
            row["error"] = f"exit {code}: {text[-500:]}"
    return row | {"gb_per_s": best}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/release/bin", type=pathlib.Path, help="folder with peer_bench and transport_bench")
    parser.add_argument("--sender_device", type=int, default=0)
    parser.add_argument("--device", type=int, default=1, help="the receiver's")
    parser.add_argument("--memory", choices=("cuda", "host"), default="cuda", help="host: does it work? UCX only, no ceiling")
    parser.add_argument("--times", type=int, default=24, help="that the whole KV goes over")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bar", type=float, default=0.85)
    parser.add_argument("--json", help="where all figures go")
    arguments = parser.parse_args()
    on_gpus = arguments.memory == "cuda"
    ceilings = ceiling(arguments.bin, arguments) if on_gpus else []
    best_copy = max((row["gb_per_s"] for row in ceilings if row["what"] == "copy" and row["ways"] == 1), default=float("nan"))
    rows, missed = [], []
    print(f"{'link':<22} {'MiB':>6} {'pieces':>8} {'GB/s':>8} {'share':>6}   path")
    for transport, flags, shapes in LINKS if on_gpus else LINKS[:1]:
        for tokens, pieces in shapes:
            row = measure(arguments.bin, arguments, transport, flags, tokens, pieces)
            row["share"] = row["gb_per_s"] / best_copy
            rows.append(row)
            print(f"{' '.join((transport, *flags)):<22} {row['bytes'] / (1 << 20):>6g} {pieces:>8} {row['gb_per_s']:>8.1f} "
                  f"{row['share']:>6.2f}   {row.get('path', row.get('error', ''))}", flush=True)
            if (tokens, pieces) == SHAPES[0] and not flags and row["share"] < arguments.bar:
                missed.append(f"missed: {transport}: {row['share']:.2f} of a plain copy, bar {arguments.bar}")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"ceilings": ceilings, "links": rows}), encoding="utf-8")
    print("\n".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
