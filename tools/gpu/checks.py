#!/usr/bin/env python3
"""What only a GPU can show, in two steps: build anywhere, run where the GPU is.

    python3 tools/gpu/checks.py stage DIR     # builds, and puts what is needed into DIR, laid out as a checkout
    python3 DIR/tools/gpu/checks.py run       # on the GPU machine: correctness, then figures beside their ceilings

The GPU machine needs a driver, cuBLAS 13 (the CUDA toolkit's or the one that PyTorch brings) and Python 3 with pytest,
pytest-timeout, numpy, sentencepiece and tokenizers; for the comparison with Hugging Face also torch and transformers; nothing
of Longhaul's. `run PART...` takes some of the parts:

    kernels    the CUDA kernels and the decoder over them: GoogleTest binaries
    transport  the contract suites over a GPU's memory
    serving    a process on the GPU, and a cluster of separate processes on it, against each other and the CPU
    truth      logits and tokens against Hugging Face transformers' (serving and truth: tests/gpu, by pytest)
    figures    benchmarks

`run` ends with one line "N passed, N failed, N skipped" and exits with 1 when one failed; the outputs lie in DIR/out, the
summary in DIR/out/summary.json. --sanitize runs the kernel tests once more under each tool of compute-sanitizer, which takes
minutes. `stage --model` takes the default model along (98 MB), for real text; without it those tests skip themselves.

Clusters on a GPU, and the tests of UCX over its memory, need a build with a UCX that knows it:

    pip download --no-deps libucx-cu13==1.22.0 -d WHEEL && unzip -q WHEEL/*.whl -d UCX
    cmake -S . -B build/gpu -G Ninja -DLONGHAUL_UCX_DIR=UCX/libucx
    python3 tools/gpu/checks.py stage DIR --build build/gpu
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]  # of the checkout, or of what was staged
sys.path.append(str(ROOT))

from tools.launcher import model  # noqa: E402

TESTS = (
    "elementwise_test", "cuda_prefill_matmul_test", "prefill_attention_test", "decode_attention_test", "decode_chain_test",
    "decode_matmul_cut_test", "decode_matmul_test", "gated_matmul_test", "gpu_sampler_test", "slab_digest_test", "cuda_decoder_test", "large_offsets_test",
    "nccl_collective_test", "cuda_ranks_test",
)
# Their CPU cases have run where the build was made; these filters leave the GPU's.
TRANSPORT_TESTS = {
    "ucx_contract_test": "*/Cuda", "ucx_peer_test": "*/Cuda", "self_test_process_test": "*/Cuda", "nccl_contract_test": "*",
}
PARTS = ("kernels", "transport", "serving", "truth", "figures")
PYTEST = {"serving": "tests/gpu/test_serving.py", "truth": "tests/gpu/test_transformers.py"}
SERVERS = ("longhaul_router", "longhaul_prefill", "longhaul_decode", "longhaul_standalone", "model_generate")
# Where the launcher looks for binaries, from the staged folder's root.
BINARIES = pathlib.Path("build", "release", "bin")
# Python and data of a checkout that run there, and a package of pure Python that few machines have.
SOURCES = ("tools/gpu/*.py", "tools/launcher/*.py", "tools/bench/*.py", "tests/gpu/*.py", "tests/reference/*.py", "tests/bench/*.py",
           "tests/router/text/*.py", "tests/e2e/exact_answers.py", "tests/e2e/golden/*")
PACKAGE = "gguf==0.19.0"
# Our link beside ucx_perftest, where the staged UCX brought it.
LINK_BENCH = "transport_bench"
BESIDE_PERFTEST = "tools/bench/transport.py"
# What libuct.so.0 loads from the folder ucx beside it, and where that folder's own libraries lie in the wheel.
UCX_PLUGINS = ("libuct_cma.so.0", "libuct_cuda.so.0", "libucm_cuda.so.0", "libucx_perftest_cuda.so.0")
UCX_WHEEL_LIBRARIES = "../../libucx_cu13.libs"
UCX_PERFTEST = "../bin/ucx_perftest"
# One round of PyTorch's attention in turns with ours is the last figure, where PyTorch is.
BENCHMARKS = (
    "prefill_attention_bench", "decode_attention_bench", "decode_matmul_bench", "gated_matmul_bench", "kv_memory_bench", "cuda_model_bench",
    "prompt_path_bench",
)
BESIDE_TORCH = "tests/bench/torch_attention.py"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
TEST_SECONDS = 300
BENCHMARK_SECONDS = 200
SANITIZER_SECONDS = 900
PYTEST_SECONDS = 900
NO_TESTS = 5  # pytest's exit code where a whole file is skipped
# Found on the GPU machine, not carried: the C and C++ runtimes, and cuBLAS and NCCL, which are larger than all the rest.
THERE = re.compile(r"^(?:ld-linux|linux-vdso|lib(?:c|m|dl|rt|pthread|stdc\+\+|gcc_s|cublas|cublasLt|nccl|cuda)\.so)")
COUNTS = re.compile(r"\[  (PASSED|SKIPPED|FAILED)  ?\] (\d+) tests?")
PYTEST_COUNTS = re.compile(r"(\d+) (passed|failed|skipped)")


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
        to = folder / ("lib/ucx" if file.suffix else BINARIES) / file.name
        subprocess.run(["strip", "-o", to, file], check=True)
    for file in (libraries_folder / UCX_WHEEL_LIBRARIES).glob("*.so*"):
        shutil.copy(file, folder / "lib")


def copy_sources(folder):
    for pattern in SOURCES:
        for file in ROOT.glob(pattern):
            to = folder / file.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)


def stage(folder, build, with_model):
    names = (*TESTS, *TRANSPORT_TESTS, *BENCHMARKS, LINK_BENCH, *SERVERS)
    subprocess.run(["ninja", "-C", build, *names], check=True)
    for part in ("lib", BINARIES):
        (folder / part).mkdir(parents=True, exist_ok=True)
    copied = set()
    for name in names:
        binary = pathlib.Path(build, "bin", name)
        subprocess.run(["strip", "-o", folder / BINARIES / name, binary], check=True)
        for library in map(pathlib.Path, libraries(binary)):
            if library in copied:
                continue
            copied.add(library)
            subprocess.run(["strip", "-o", folder / "lib" / library.name, library], check=True)
            if library.name == "libuct.so.0":
                stage_ucx(library.resolve().parent, folder)
    copy_sources(folder)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--root-user-action=ignore", "--no-deps", "--upgrade", "--target",
                    folder / "python", PACKAGE], check=True)
    if with_model:
        to = folder / model.DEFAULT.path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model.DEFAULT.path, to)
    files = [file for file in folder.rglob("*") if file.is_file()]
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB in {folder}")


def folder_of(library, package):
    """Where the loader or PyTorch's packages have a library; ends when it is nowhere."""
    for root in ("/usr/local", "/usr/lib", "/opt", *sys.path):
        if root and os.path.isdir(root):
            for found in pathlib.Path(root).rglob(library):
                return str(found.parent)
    sys.exit(f"error: no {library} on this machine\nwhy:   the CUDA backend is linked with it\n"
             f"fix:   install {package}, or PyTorch for CUDA 13")


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


def count(log, code, found):
    """The outcomes of one run; one that ends badly without naming a failed test counts as one."""
    counts = {kind: int(number) for number, kind in found}
    if code != 0:
        counts["failed"] = max(1, counts.get("failed", 0))
        print(log[-3000:])
    return counts


def run_gtests(names, out, environment, sanitizer=None):
    total = collections.Counter()
    for name in names:
        command = [ROOT / BINARIES / name]
        if name in TRANSPORT_TESTS:
            command.append(f"--gtest_filter={TRANSPORT_TESTS[name]}")
        if sanitizer:
            command = ["compute-sanitizer", "--tool", sanitizer, "--error-exitcode", "1", *command]
        code, log = run_one(command, SANITIZER_SECONDS if sanitizer else TEST_SECONDS, out / f"{sanitizer or 'test'}-{name}.txt",
                            environment)
        total.update(count(log, code, [(number, kind.lower()) for kind, number in COUNTS.findall(log)]))
    return total


def run_pytest(file, out, environment):
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-rs", f"--rootdir={ROOT}", ROOT / file]
    code, log = run_one(command, PYTEST_SECONDS, out / f"{pathlib.Path(file).stem}.txt", environment)
    print(log)
    last = log.splitlines()[-1] if log else ""
    return count("", 0 if code == NO_TESTS else code, PYTEST_COUNTS.findall(last))


def run_figures(out, environment):
    benchmarks = [[ROOT / BINARIES / name] for name in BENCHMARKS]
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
        benchmarks.append([sys.executable, ROOT / BESIDE_TORCH, "--bench", ROOT / BINARIES / "prefill_attention_bench"])
    perftest = ROOT / BINARIES / "ucx_perftest"
    if perftest.exists():
        benchmarks.append([sys.executable, ROOT / BESIDE_PERFTEST, "--build", ROOT / BINARIES.parent, "--perftest", perftest,
                           "--memory", "cuda"])
    figures = {}
    for command in benchmarks:
        name = pathlib.Path(command[1] if len(command) > 1 else command[0]).name
        code, log = run_one(command, BENCHMARK_SECONDS, out / f"{name}.txt", environment)
        print(log, flush=True)
        figures[name] = {"exit": code, "output": log.splitlines()}
    return figures


def run(parts, sanitize):
    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    theirs = (folder_of("libcublasLt.so.13", "the CUDA toolkit 13"), folder_of("libnccl.so.2", "libnccl2"))
    path = ":".join(filter(None, (str(ROOT / "lib"), *theirs, os.environ.get("LD_LIBRARY_PATH"))))
    environment = {**os.environ, "LD_LIBRARY_PATH": path, "PYTHONPATH": f"{ROOT}:{ROOT / 'python'}"}
    totals = collections.Counter()
    if "kernels" in parts:
        totals += run_gtests(TESTS, out, environment)
    if "transport" in parts:
        totals += run_gtests(TRANSPORT_TESTS, out, environment)
    for part in PYTEST:
        if part in parts:
            totals.update(run_pytest(PYTEST[part], out, environment))
    for sanitizer in SANITIZERS if sanitize else ():
        totals += run_gtests(TESTS, out, environment, sanitizer)
    figures = run_figures(out, environment) if "figures" in parts else {}
    (out / "summary.json").write_text(json.dumps({"tests": totals, "figures": figures}, indent=1), encoding="utf-8")
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    return 1 if totals["failed"] or any(figure["exit"] for figure in figures.values()) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    staging = commands.add_parser("stage", help="build and collect everything in a folder")
    staging.add_argument("folder", type=pathlib.Path)
    staging.add_argument("--build", default=ROOT / "build/release")
    staging.add_argument("--model", action="store_true", help="take the default model along, which ./longhaul up fetches")
    running = commands.add_parser("run", help="run what was staged, on the GPU machine")
    running.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    running.add_argument("--sanitize", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "stage":
        stage(arguments.folder, arguments.build, arguments.model)
        return 0
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    return run(arguments.parts or PARTS, arguments.sanitize)


if __name__ == "__main__":
    sys.exit(main())
