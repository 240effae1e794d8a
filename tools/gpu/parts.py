"""What the checks are made of: parts that a run can be asked for, and their steps, correctness before figures."""

import importlib.util
import os
import pathlib
import sys
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]  # of the checkout, or of what was staged
# Where the launcher looks for binaries.
BINARIES = pathlib.Path("build", "release", "bin")
KERNEL_TESTS = (
    "elementwise_test", "cuda_prefill_matmul_test", "prefill_attention_test", "decode_attention_test", "decode_chain_test",
    "decode_matmul_cut_test", "decode_matmul_test", "gated_matmul_test", "gpu_sampler_test", "slab_digest_test",
    "cuda_decoder_test", "large_offsets_test", "nccl_collective_test", "cuda_ranks_test",
)
RANKS_TESTS = ("nccl_collective_test", "cuda_ranks_test")
NOT_TWO_RANKS = "-*/Width2:Widths/*/2"
# Step: test and cases, with those that end a group by themselves: who waits for a rank that is gone may wait for ever.
TWO_RANKS = {
    "sums": ("nccl_collective_test", "*/Width2-*ARankThatGoes*:*AnAbort*"), "ranks": ("cuda_ranks_test", "Widths/*/2"),
    "gone": ("nccl_collective_test", "*ARankThatGoes*/Width2"), "aborted": ("nccl_collective_test", "*AnAbort*/Width2"),
}
# Their CPU cases have run where the build was made; these filters leave the GPU's.
TRANSPORT_TESTS = {
    "ucx_contract_test": "*/Cuda", "transport_peer_test": "*/UcxCuda", "self_test_process_test": "*/UcxCuda",
    "nccl_contract_test": "NcclLaneTest.*:NcclOneGpuTest.*",
}
TWO_GPUS_TESTS = {
    "pools": ("two_devices_test", "*"), "lanes": ("nccl_contract_test", "Nccl/*"), "ucx-peers": ("transport_peer_test", "*/UcxTwoGpus"),
    "nccl-peers": ("transport_peer_test", "*/NcclCuda"), "self-tests": ("self_test_process_test", "*/UcxTwoGpus:*/NcclCuda"),
}
# What of tests/gpu/test_two_gpus.py runs by itself, so that one that hangs leaves the others.
PAIRS = {
    "ucx": "ucx and prefill_on_one_gpu or over_both_gpus", "nccl": "nccl and prefill_on_one_gpu",
    "ranks": "ucx and (unequal_widths or two_ranks)", "killed-ucx": "ucx and killed", "killed-nccl": "nccl and killed",
}
SERVERS = ("longhaul_router", "longhaul_prefill", "longhaul_decode", "longhaul_standalone")
BENCHMARKS = ("prefill_attention_bench", "decode_attention_bench", "decode_matmul_bench", "gated_matmul_bench", "kv_memory_bench",
              "cuda_model_bench", "prompt_path_bench")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
LLAMA = "/dev/shm/longhaul-llama-8b"
UNREGISTERED = (("NCCL_GRAPH_REGISTER", "0"),)


@dataclass(frozen=True)
class Step:
    name: str
    command: tuple
    seconds: int
    kind: str = "figures"  # or gtest, pytest: whose counts it prints
    shown: bool = True  # its output as it comes; else only where it fails
    environment: tuple = ()  # (name, value)...
    writes_json: bool = False  # takes --json FILE


@dataclass(frozen=True)
class Part:
    name: str
    what: str
    steps: object  # a function that gives [Step], on the machine
    binaries: tuple
    gpus: int = 1
    seconds: int = 3600  # for all its steps, so that what hangs in one part leaves time for the next


def _gtest(binary, chosen=None, seconds=300, name="", **more):
    return Step(name or binary, (ROOT / BINARIES / binary, *([f"--gtest_filter={chosen}"] if chosen else [])), seconds, "gtest",
                shown=False, **more)


def _pytest(name, file, seconds, *more):
    return Step(name, (sys.executable, "-B", "-m", "pytest", "-v", "-p", "no:cacheprovider", "-rs", f"--rootdir={ROOT}",
                       ROOT / "tests/gpu" / file, *more), seconds, "pytest")


def _tool(name, file, seconds, *more):
    return Step(name, (sys.executable, ROOT / "tools/bench" / file, *more), seconds, writes_json=True)


def _kernels():
    return [_gtest(name, NOT_TWO_RANKS if name in RANKS_TESTS else None) for name in KERNEL_TESTS]


def _sanitized():
    return [Step(f"{tool} {name}", ("compute-sanitizer", "--tool", tool, "--error-exitcode", "1", ROOT / BINARIES / name), 900,
                 "gtest", shown=False) for tool in SANITIZERS for name in KERNEL_TESTS]


def _ranks():
    """The recorded steps once more where NCCL registers none of their memory, which it may hang over."""
    steps = [_gtest(binary, cases, 40, name) for name, (binary, cases) in TWO_RANKS.items()]
    return steps + [_gtest(*TWO_RANKS["ranks"], 40, "ranks", environment=UNREGISTERED)]


def _figures():
    steps = [Step(name, (ROOT / BINARIES / name,), 200) for name in BENCHMARKS]
    if importlib.util.find_spec("torch"):
        steps.append(Step("torch_attention", (sys.executable, ROOT / "tests/bench/torch_attention.py", "--bench",
                                              ROOT / BINARIES / "prefill_attention_bench"), 200))
    perftest = ROOT / BINARIES / "ucx_perftest"
    if perftest.exists():
        steps.append(Step("transport", (sys.executable, ROOT / "tools/bench/transport.py", "--build", ROOT / BINARIES.parent,
                                        "--perftest", perftest, "--memory", "cuda"), 200))
    return steps


def _hand_off():
    steps = [] if os.path.exists(f"{LLAMA}/config.json") else [
        Step("random_model", (sys.executable, ROOT / "tools/bench/random_model.py", LLAMA), 90)]
    for transport in ("ucx", "nccl"):
        steps.append(_tool(f"hand_off-{transport}", "hand_off.py", 110, "--model", LLAMA, "--bin", ROOT / BINARIES,
                           "--decode_device", "1", "--kv_transport", transport, "--lengths", "128,2048,32768",
                           "--repeats", "100,40,6", "--cached", "12"))
    return steps


PARTS = (
    Part("kernels", "the CUDA kernels and the decoder over them: GoogleTest binaries", _kernels, KERNEL_TESTS),
    Part("transport", "the contract suites over a GPU's memory",
         lambda: [_gtest(name, chosen) for name, chosen in TRANSPORT_TESTS.items()], tuple(TRANSPORT_TESTS)),
    Part("serving", "a process on the GPU, and a cluster of separate processes on it, against each other and the CPU",
         lambda: [_pytest("serving", "test_serving.py", 300)], SERVERS),
    Part("truth", "logits and tokens against Hugging Face transformers'",
         lambda: [_pytest("truth", "test_transformers.py", 300)], ("model_generate",)),
    Part("wires", "links between two GPUs: their contract, and peers that are stopped and killed",
         lambda: [_gtest(binary, cases, 75, name) for name, (binary, cases) in TWO_GPUS_TESTS.items()],
         tuple({binary for binary, _ in TWO_GPUS_TESTS.values()}), gpus=2, seconds=140),
    Part("ranks", "a model of two ranks, and their sums", _ranks, RANKS_TESTS, gpus=2, seconds=110),
    Part("pairs", "workers on two GPUs against one process; a worker killed while KV crosses",
         lambda: [_pytest(f"pairs-{name}", "test_two_gpus.py", 75, "-k", chosen) for name, chosen in PAIRS.items()],
         SERVERS, gpus=2, seconds=190),
    Part("figures", "benchmarks of one GPU", _figures, (*BENCHMARKS, "transport_bench")),
    Part("links", "KV from GPU to GPU beside plain copies",
         lambda: [_tool("links", "between_gpus.py", 120, "--bin", ROOT / BINARIES)], ("peer_bench", "transport_bench"), gpus=2),
    Part("hand_off", "hand-offs from one GPU to the other, a whole cluster of processes", _hand_off,
         (*SERVERS, "transport_bench"), gpus=2),
    Part("widths", "a model on one GPU and cut over two",
         lambda: [_tool("widths", "tensor_parallel.py", 120, "--bin", ROOT / BINARIES)], ("cuda_model_bench",), gpus=2),
)
SANITIZED = Part("sanitize", "the kernel tests under each tool of compute-sanitizer", _sanitized, KERNEL_TESTS)
