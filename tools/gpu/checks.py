#!/usr/bin/env python3
"""What only a GPU can show, in two steps: build anywhere, run where the GPU is.

    python3 tools/gpu/checks.py stage DIR     # builds, and puts binaries, their libraries and this script into DIR
    python3 DIR/checks.py run                 # on the GPU machine: correctness, then figures beside their ceilings

The GPU machine needs a driver, cuBLAS 13 (the CUDA toolkit's or the one that PyTorch brings) and Python 3, nothing of
Longhaul's. `run` ends with one line "N passed, N failed, N skipped" over the GoogleTest binaries and exits with 1 when one
failed; the outputs lie in DIR/out, the summary in DIR/out/summary.json. --sanitize runs the kernel tests once more under
each tool of compute-sanitizer, which takes minutes.

The tests of UCX over a GPU's memory run where the build has a UCX that knows it, and skip themselves elsewhere:

    pip download --no-deps libucx-cu13==1.22.0 -d WHEEL && unzip -q WHEEL/*.whl -d UCX
    cmake -S . -B build/gpu -G Ninja -DLONGHAUL_UCX_DIR=UCX/libucx
    python3 tools/gpu/checks.py stage DIR --build build/gpu
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

TESTS = (
    "elementwise_test", "cuda_prefill_matmul_test", "prefill_attention_test", "decode_attention_test", "decode_matmul_cut_test", "decode_matmul_test",
    "gpu_sampler_test", "slab_digest_test", "cuda_decoder_test",
)
# Their CPU cases have run where the build was made; these filters leave the GPU's.
TRANSPORT_TESTS = {"ucx_contract_test": "*/Cuda", "ucx_peer_test": "*/Cuda", "self_test_process_test": "*/Cuda"}
# Our link beside ucx_perftest, where the staged UCX brought it.
LINK_BENCH = "transport_bench"
BESIDE_PERFTEST = "transport.py"
# What libuct.so.0 loads from the folder ucx beside it, and where that folder's own libraries lie in the wheel.
UCX_PLUGINS = ("libuct_cma.so.0", "libuct_cuda.so.0", "libucm_cuda.so.0", "libucx_perftest_cuda.so.0")
UCX_WHEEL_LIBRARIES = "../../libucx_cu13.libs"
UCX_PERFTEST = "../bin/ucx_perftest"
# One round of PyTorch's attention in turns with ours is the last figure, where PyTorch is.
BENCHMARKS = (
    "prefill_attention_bench", "decode_attention_bench", "decode_matmul_bench", "kv_memory_bench", "cuda_model_bench",
)
BESIDE_TORCH = "torch_attention.py"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
TEST_SECONDS = 300
BENCHMARK_SECONDS = 200
SANITIZER_SECONDS = 900
# Found on the GPU machine, not carried: the C and C++ runtimes, and cuBLAS, which is larger than all the rest.
THERE = re.compile(r"^(?:ld-linux|linux-vdso|lib(?:c|m|dl|rt|pthread|stdc\+\+|gcc_s|cublas|cublasLt|cuda)\.so)")
COUNTS = re.compile(r"\[  (PASSED|SKIPPED|FAILED)  ?\] (\d+) tests?")


def libraries(binary):
    """Paths of the shared libraries that a binary loads and the GPU machine lacks."""
    listing = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    found = [line.split("=>")[1].split()[0] for line in listing.splitlines() if "=> /" in line]
    return [path for path in found if not THERE.match(os.path.basename(path))]


def stage_ucx(libraries_folder, folder):
    """What the UCX in a folder loads by name, and its own benchmark where it is there."""
    found = [libraries_folder / "ucx" / name for name in UCX_PLUGINS] + [libraries_folder / UCX_PERFTEST]
    (folder / "lib" / "ucx").mkdir(exist_ok=True)
    for file in filter(pathlib.Path.is_file, found):
        to = folder / ("lib/ucx" if file.suffix else "bin") / file.name
        subprocess.run(["strip", "-o", to, file], check=True)
    for file in (libraries_folder / UCX_WHEEL_LIBRARIES).glob("*.so*"):
        shutil.copy(file, folder / "lib")


def stage(folder, build):
    names = (*TESTS, *TRANSPORT_TESTS, *BENCHMARKS)
    places = {name: folder / name for name in names} | {LINK_BENCH: folder / "bin" / LINK_BENCH}
    subprocess.run(["ninja", "-C", build, *places], check=True)
    for part in ("lib", "bin"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, place in places.items():
        binary = pathlib.Path(build, "bin", name)
        subprocess.run(["strip", "-o", place, binary], check=True)
        for library in map(pathlib.Path, libraries(binary)):
            shutil.copy(library, folder / "lib")
            if library.name == "libuct.so.0":
                stage_ucx(library.resolve().parent, folder)
    here = pathlib.Path(__file__).resolve()
    shutil.copy(here, folder)
    shutil.copy(here.parents[2] / "tests" / "bench" / BESIDE_TORCH, folder)
    shutil.copy(here.parents[1] / "bench" / BESIDE_PERFTEST, folder)
    files = [file for file in folder.rglob("*") if file.is_file()]
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB in {folder}")


def cublas_folder():
    """Where the loader or PyTorch's packages have cuBLAS; None when it is nowhere."""
    for root in ("/usr/local", "/usr/lib", "/opt", *sys.path):
        if root and os.path.isdir(root):
            for found in pathlib.Path(root).rglob("libcublasLt.so.13"):
                return str(found.parent)
    return None


def run_one(command, seconds, log, environment):
    """(exit code, output); 124 for a time-out, as timeout(1) says."""
    begun = time.monotonic()
    with open(log, "w", encoding="utf-8") as out:
        try:
            code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=seconds, env=environment,
                                  check=False).returncode
        except subprocess.TimeoutExpired:
            code = 124
    text = log.read_text(encoding="utf-8", errors="replace")
    print(f"== {' '.join(map(str, command))}: {'ok' if code == 0 else f'exit {code}'}, {time.monotonic() - begun:.0f} s", flush=True)
    return code, text


def run_tests(folder, out, environment, sanitizer=None):
    """Counts by outcome; a binary that ends badly without naming a failed test counts as one."""
    total = {"PASSED": 0, "FAILED": 0, "SKIPPED": 0}
    # The sanitizers look at kernels, and the transport has none.
    for name in TESTS if sanitizer else (*TESTS, *TRANSPORT_TESTS):
        command = [folder / name]
        if name in TRANSPORT_TESTS:
            command.append(f"--gtest_filter={TRANSPORT_TESTS[name]}")
        if sanitizer:
            command = ["compute-sanitizer", "--tool", sanitizer, "--error-exitcode", "1", *command]
        log = out / f"{sanitizer or 'test'}-{name}.txt"
        code, text = run_one(command, SANITIZER_SECONDS if sanitizer else TEST_SECONDS, log, environment)
        counts = {kind: int(count) for kind, count in COUNTS.findall(text)}
        if code != 0:
            counts["FAILED"] = max(1, counts.get("FAILED", 0))
            print(text[-3000:])
        for kind, count in counts.items():
            total[kind] += count
    return total


def run(folder, sanitize):
    out = folder / "out"
    out.mkdir(exist_ok=True)
    cublas = cublas_folder()
    if cublas is None:
        sys.exit("error: no libcublasLt.so.13 on this machine\nwhy:   the CUDA backend's products are cuBLAS's\n"
                 "fix:   install the CUDA toolkit 13, or PyTorch for CUDA 13")
    path = ":".join(filter(None, (str(folder / "lib"), cublas, os.environ.get("LD_LIBRARY_PATH"))))
    environment = {**os.environ, "LD_LIBRARY_PATH": path}
    totals = run_tests(folder, out, environment)
    for sanitizer in SANITIZERS if sanitize else ():
        for kind, count in run_tests(folder, out, environment, sanitizer).items():
            totals[kind] += count
    benchmarks = [[folder / name] for name in BENCHMARKS]
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
        benchmarks.append([sys.executable, folder / BESIDE_TORCH, "--bench", folder / "prefill_attention_bench"])
    perftest = folder / "bin" / "ucx_perftest"
    if perftest.exists():
        benchmarks.append([sys.executable, folder / BESIDE_PERFTEST, "--build", folder, "--perftest", perftest, "--memory", "cuda"])
    figures = {}
    for command in benchmarks:
        name = pathlib.Path(command[1] if len(command) > 1 else command[0]).name
        code, text = run_one(command, BENCHMARK_SECONDS, out / f"{name}.txt", environment)
        print(text, flush=True)
        figures[name] = {"exit": code, "output": text.splitlines()}
    (out / "summary.json").write_text(json.dumps({"tests": totals, "figures": figures}, indent=1), encoding="utf-8")
    print(f"{totals['PASSED']} passed, {totals['FAILED']} failed, {totals['SKIPPED']} skipped")
    return 1 if totals["FAILED"] or any(figure["exit"] for figure in figures.values()) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    staging = commands.add_parser("stage", help="build and collect everything in a folder")
    staging.add_argument("folder", type=pathlib.Path)
    staging.add_argument("--build", default="build/release")
    running = commands.add_parser("run", help="run what lies beside this script, on the GPU machine")
    running.add_argument("--sanitize", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "stage":
        stage(arguments.folder, arguments.build)
        return 0
    return run(pathlib.Path(__file__).resolve().parent, arguments.sanitize)


if __name__ == "__main__":
    sys.exit(main())
