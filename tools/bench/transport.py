"""Our UCX link beside ucx_perftest, in one run: the same transports, sizes and window, between two processes.

    python3 tools/bench/transport.py --build build/release [--rounds 5] [--memory cuda]

Needs ucx_perftest (Debian: ucx-utils; for a GPU's memory that of PyPI's libucx-cu13). Each round runs both, one right after the other, and the best of each counts:
what else the machine does only ever makes them slower. Exits with 1 when ours has less than --bar of the other.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time

# By memory: sizes, modes (what UCX may use, whether as if over a network), and GB/s to reckon a run's length with.
SIZES = {"host": (1 << 20, 8 << 20, 64 << 20), "cuda": (512 << 10, 4 << 20, 64 << 20)}
MODES = {"host": {"shared memory": ("sysv,cma,self", False), "tcp": ("tcp", True)}, "cuda": {"GPU": ("sysv,cma,self,tcp", False)}}
RATES = {"host": 4e9, "cuda": 200e9}
WINDOW = 8


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return platform.processor()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def perftest(binary, transports, network, memory, size, messages):
    """GB/s of ucx_perftest's tagged messages; over the network with error handling (-e), which our links need there."""
    if memory == "cuda":
        transports += ",cuda_copy,cuda_ipc"
    environment = {**os.environ, "UCX_TLS": transports, "UCX_LOG_LEVEL": "error"}
    port = str(free_port())
    with subprocess.Popen([binary, "-p", port], env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as server:
        try:
            command = [binary, "127.0.0.1", "-p", port, "-t", "tag_bw", "-m", memory, "-s", str(size), "-n", str(messages),
                       "-w", str(messages // 10 + 1), "-O", str(WINDOW), "-f"] + (["-e"] if network else [])
            for _ in range(50):  # until the server listens
                client = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if client.returncode == 0:
                    break
                time.sleep(0.1)
            client.check_returncode()
        finally:
            server.terminate()
    # iterations, median, average and overall latency, average and overall bandwidth in MiB/s, two message rates
    return float(client.stdout.split()[-3]) * (1 << 20) / 1e9


def ours(binary, transports, network, memory, size, messages, pieces=1):
    command = [binary, f"--bytes={size}", f"--messages={messages}", f"--window={WINDOW}", f"--pieces={pieces}",
               f"--transports={transports}", f"--memory={memory}"] + (["--network"] if network else [])
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build folder with bin/transport_bench")
    parser.add_argument("--perftest", default="ucx_perftest", help="UCX's own benchmark")
    parser.add_argument("--memory", choices=MODES, default="host", help="where the messages lie")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bar", type=float, default=0.8)
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long one measurement takes at 4 GB/s, on a GPU at 200")
    arguments = parser.parse_args()
    binary = os.path.join(arguments.build, "bin", "transport_bench")
    print(cpu_name())
    print(f"{'mode':<14} {'path':<10} {'MiB':>4} {'ucx_perftest':>13} {'ours':>7} {'ratio':>6} {'128 pieces':>11}   GB/s")
    worst = float("inf")
    memory = arguments.memory
    for mode, (transports, network) in MODES[memory].items():
        for size in SIZES[memory]:
            messages = max(20, int(arguments.seconds * RATES[memory] / size))
            theirs = best = scattered = 0.0
            path = ""
            for _ in range(arguments.rounds):
                theirs = max(theirs, perftest(arguments.perftest, transports, network, memory, size, messages))
                result = ours(binary, transports, network, memory, size, messages)
                best, path = max(best, result["gb_per_s"]), result["path"]
                scattered = max(scattered, ours(binary, transports, network, memory, size, messages, 128)["gb_per_s"])
            worst = min(worst, best / theirs)
            print(f"{mode:<14} {path:<10} {size / (1 << 20):>4g} {theirs:>13.2f} {best:>7.2f} {best / theirs:>6.2f} "
                  f"{scattered:>11.2f}", flush=True)
    print(f"worst ratio {worst:.2f}, bar {arguments.bar}")
    return 0 if worst >= arguments.bar else 1


if __name__ == "__main__":
    sys.exit(main())
