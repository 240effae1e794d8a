"""Layouts of a cluster on one host's devices, for benchmarks that compare them: who computes prompts, and where."""

import contextlib
import dataclasses
import json
import os

import worker_processes

# Prefill workers and decode workers. Without prefill workers a decode worker computes its prompts itself, in chunks within its steps.
LAYOUTS = {"disaggregated": (1, 1), "colocated": (0, 1), "two-colocated": (0, 2)}
BACKEND_FLAGS = {
    "cuda": {"all": ["--backend=cuda"], "prefill": [], "decode": ["--batch_sequences_max=256"]},
    "cpu": {"all": ["--backend=cpu", "--block_tokens=16", "--kv_bytes=400000000"], "prefill": [], "decode": []},
}


@dataclasses.dataclass
class Cluster:
    layout: str
    devices: int  # how many it has
    router: str  # address of the API
    workers: list

    def show_logs(self, file, characters=1500):
        for process in self.workers:
            print(f"--- {process.name}\n{process.log.read_text()[-characters:]}", file=file)


def add_arguments(parser):
    """What every benchmark of layouts asks for. Flags for processes are given as --worker_flags=--a=1."""
    parser.add_argument("--model", default="", help="a folder as random_model.py makes it")
    parser.add_argument("--bin", default="build/release/bin", help="folder with longhaul_*")
    parser.add_argument("--backend", choices=BACKEND_FLAGS, default="cuda")
    parser.add_argument("--devices", default="0,1", help="CUDA's numbers, of the prefill worker first; 0,0: both on one")
    parser.add_argument("--cores", default="", help="a core for each worker, as 0,1: its one compute thread is pinned there")
    parser.add_argument("--kv_transport", default="", help="what carries KV, where the workers have a choice; empty: theirs")
    parser.add_argument("--mps", action="store_true", help="run CUDA's MPS, where two workers share a GPU")
    parser.add_argument("--step_target_ms", type=float, default=0, help="the decode workers' flag; 0: their own choice")
    parser.add_argument("--worker_flags", default="", help="more flags for all workers")
    parser.add_argument("--prefill_flags", default="")
    parser.add_argument("--decode_flags", default="")
    parser.add_argument("--router_flags", default="", help="as --spill_slowdown=3")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="where all figures go")


def service(arguments):
    """A context whose value is the environment of all processes."""
    return worker_processes.multi_process_service() if arguments.mps else contextlib.nullcontext(dict(os.environ))


def config_of(model):
    with open(os.path.join(model, "config.json"), encoding="utf-8") as file:
        return json.load(file)


@contextlib.contextmanager
def started(layout, arguments, environment):
    """A Cluster that serves."""
    prefill_count, decode_count = LAYOUTS[layout]
    devices = arguments.devices.split(",")
    cores = arguments.cores.split(",") if arguments.cores else []
    flags = BACKEND_FLAGS[arguments.backend]
    roles = ["prefill"] * prefill_count + ["decode"] * decode_count
    with worker_processes.Host(arguments.bin, arguments.model, environment) as host:
        workers = []
        for i, role in enumerate(roles):
            own = [f"--device={devices[i % len(devices)]}", *flags["all"], *flags[role], *arguments.worker_flags.split()]
            if cores:
                own += ["--threads=1", f"--cores={cores[i % len(cores)]}"]
            if arguments.kv_transport:
                own.append(f"--kv_transport={arguments.kv_transport}")
            if role == "decode":
                own.append(f"--step_target_ms={arguments.step_target_ms:g}")
            own += (arguments.prefill_flags if role == "prefill" else arguments.decode_flags).split()
            workers.append(host.start(role, f"{role}-{i}", *own))
        host.wait(*workers)
        router = host.start_router("router", workers[0] if prefill_count else None, *workers[prefill_count:],
                                   flags=arguments.router_flags.split())
        yield Cluster(layout, len({devices[i % len(devices)] for i in range(len(roles))}), router.http, [router, *workers])
