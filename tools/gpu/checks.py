#!/usr/bin/env python3
"""What only GPUs can show, in two steps: build anywhere, run where the GPUs are.

    python3 tools/gpu/checks.py stage DIR [PART...]          # builds, and puts what is needed into DIR and DIR.tar.xz
    python3 DIR/tools/gpu/checks.py run [PART...] [--within SECONDS] [--out DIR]   # there: correctness, then figures

The GPU machine needs a driver, cuBLAS 13 (the CUDA toolkit's or the one that PyTorch brings), NCCL and Python 3 with pytest,
pytest-timeout, numpy, sentencepiece and tokenizers; for the comparison with Hugging Face also torch and transformers; nothing
of Longhaul's. Without PART: all parts, but `sanitize`, that the machine has GPUs for; `one` and `two` are those that take so many:

PARTS

Each step has a time limit, and --within one for all: what is left out for it counts as failed. `run` ends with one line "N passed,
N failed, N skipped", exits with 1 when a step did not end well, and leaves log.txt and summary.json, which has every figure, in
DIR/out or --out. `stage --model` takes the default model along (98 MB), for real text; without it those tests skip themselves.

Clusters on GPUs, and the tests of UCX over their memory, need a build with a UCX that knows it:

    pip download --no-deps libucx-cu13==1.22.0 -d WHEEL && unzip -q WHEEL/*.whl -d UCX
    cmake -S . -B build/gpu -G Ninja -DLONGHAUL_UCX_DIR=UCX/libucx
    python3 tools/gpu/checks.py stage DIR --build build/gpu
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]  # of the checkout, or of what was staged
sys.path.append(str(ROOT))

from tools.gpu import parts, running, staging  # noqa: E402

GROUPS = {"one": 1, "two": 2}


def chosen(parser, words):
    """The parts that the words name, in the order of a run."""
    by_name = {part.name: part for part in (*parts.PARTS, parts.SANITIZED)}
    if unknown := set(words) - set(by_name) - set(GROUPS):
        parser.error(f"no part {', '.join(unknown)}: there are {', '.join((*by_name, *GROUPS))}")
    names = set(words) or {part.name for part in parts.PARTS}
    for group, gpus in GROUPS.items():
        if group in names:
            names |= {part.name for part in parts.PARTS if part.gpus == gpus}
    return [part for name, part in by_name.items() if name in names]


def main():
    listed = "\n".join(f"    {part.name:<10} {part.what}" + (f" ({part.gpus} GPUs)" if part.gpus > 1 else "")
                       for part in (*parts.PARTS, parts.SANITIZED))
    parser = argparse.ArgumentParser(description=__doc__.replace("PARTS\n", listed + "\n"),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    subcommands = parser.add_subparsers(dest="command", required=True)
    staging_parser = subcommands.add_parser("stage", help="build and collect everything in a folder")
    staging_parser.add_argument("folder", type=pathlib.Path)
    staging_parser.add_argument("parts", nargs="*", metavar="PART")
    staging_parser.add_argument("--build", default=ROOT / "build/release")
    staging_parser.add_argument("--model", action="store_true", help="take the default model along, which ./longhaul up fetches")
    running_parser = subcommands.add_parser("run", help="run what was staged, on the GPU machine")
    running_parser.add_argument("parts", nargs="*", metavar="PART")
    running_parser.add_argument("--within", type=float, default=0, metavar="SECONDS", help="for the whole run; 0: no limit")
    running_parser.add_argument("--out", type=pathlib.Path, default=ROOT / "out")
    arguments = parser.parse_args()
    picked = chosen(parser, arguments.parts)
    if arguments.command == "stage":
        staging.stage(arguments.folder, picked, arguments.build, arguments.model)
        return 0
    return running.run(picked, arguments.out, arguments.within)


if __name__ == "__main__":
    sys.exit(main())
