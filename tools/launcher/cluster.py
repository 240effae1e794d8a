"""A cluster on one host: prefill and decode workers, and the router in front of them; or all of it in one process."""

import dataclasses
import http.client
import json
import os
import time
from dataclasses import dataclass

from tools.launcher import build, paths, ports, processes
from tools.launcher.failure import Failure

HOST = "127.0.0.1"
START_SECONDS = 120
# How long a stopping process finishes what it has accepted; less than the grace that it gets before it is killed.
ROUTER_DRAIN = "--drain_s=5"
WORKER_DRAIN = "--drain_s=2"
READY_SECONDS = 60
GPU_MEMORY_SHARE = 0.9  # of each GPU, for all workers on it
BINARIES = {
    "prefill": "longhaul_prefill",
    "decode": "longhaul_decode",
    "router": "longhaul_router",
    "standalone": "longhaul_standalone",
}


@dataclass(frozen=True)
class Shape:
    """What to start."""

    model: str
    prefill: int = 2
    decode: int = 2
    threads: int = 0  # for each worker; 0: the cores shared out evenly
    port: int = 8000  # 0: any free one
    standalone: bool = False
    detached: bool = False
    served_name: str = ""  # what clients call the model; empty: as its file says
    gpus: int = 0  # for the workers to share; a standalone takes the first by itself
    router_flags: tuple = ()
    worker_flags: tuple = ()
    prefill_flags: tuple = ()
    decode_flags: tuple = ()

    def threads_each(self):
        workers = 1 if self.standalone else self.prefill + self.decode
        return self.threads or max(1, len(os.sched_getaffinity(0)) // workers)

    def gpu_flags(self, worker):
        """Which GPU the cluster's so many-th worker takes, and how much of its memory: the GPUs go round."""
        if self.gpus == 0:
            return ()
        together = -(-(self.prefill + self.decode) // self.gpus)
        return f"--device={worker % self.gpus}", f"--gpu_memory_share={GPU_MEMORY_SHARE / together:.3f}"

    def options(self):
        """What tells two instances behind one port apart, as JSON holds it."""
        facts = {**dataclasses.asdict(self), "threads": self.threads_each()}
        del facts["port"], facts["detached"]
        return json.loads(json.dumps(facts))

    def roles(self):
        return ("standalone",) if self.standalone else ("prefill", "decode", "router")


def differences(running, asked):
    """What two instances' options differ in, in words."""

    def shown(options, name):
        value = options.get(name, "unknown")
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return [f"{name} {shown(running, name) or 'none'} instead of {shown(asked, name) or 'none'}"
            for name in asked if running.get(name) != asked[name]]


_started = 0


def _instance_name(shape):
    global _started
    _started += 1
    return str(shape.port) if shape.port else f"any-{os.getpid()}-{_started}"


def binaries_digest(roles):
    """Changes when a binary of these roles is built anew."""
    stats = [build.binary(BINARIES[role]).stat() for role in roles]
    return ",".join(f"{stat.st_size:x}-{stat.st_mtime_ns:x}" for stat in stats)


def get(address, path, timeout_seconds=5):
    """(status, body) of a GET; (0, reason) when nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def _wait_serving(instance, front):
    deadline = time.monotonic() + READY_SECONDS
    while True:
        status, body = get(front.http, "/readyz")
        if status == 200:
            return
        for process in instance.processes:
            if not process.alive():
                raise process.died("while starting")
        if time.monotonic() > deadline:
            raise Failure(
                f"{front.name} is not ready after {READY_SECONDS} s",
                f"/readyz says {status}: {body.strip()[:300]}", f"its log is {front.log}",
            )
        time.sleep(processes.POLL_SECONDS)


def start(shape, report=lambda text: None):
    """Starts what `shape` says and returns the Instance once it serves. Whatever fails, nothing is left running."""
    name = _instance_name(shape)
    digest = binaries_digest(shape.roles())
    launcher = 0 if shape.detached else os.getpid()
    instance = processes.Instance(
        name, shape.options(), digest, launcher, processes.start_ticks(launcher) or 0 if launcher else 0, []
    )
    if shape.port:
        ports.require_free(shape.port)

    def spawn(role, process_name, *flags):
        command = [build.binary(BINARIES[role]), f"--model={shape.model}", *flags]
        process = processes.spawn(
            role, process_name, command, paths.LOGS / name / f"{process_name}.log",
            paths.RUN / name / f"{process_name}.json", shape.detached,
        )
        instance.processes.append(process)
        instance.save()
        return process

    front_flags = [f"--http={HOST}:{shape.port}", ROUTER_DRAIN, *shape.router_flags]
    if shape.served_name:
        front_flags.append(f"--served_model_name={shape.served_name}")
    threads = f"--threads={shape.threads_each()}"
    try:
        if shape.standalone:
            report("starting longhaul_standalone")
            front = spawn("standalone", "standalone", *front_flags, threads, *shape.worker_flags)
        else:
            worker_flags = [f"--listen={HOST}:0", f"--http={HOST}:0", threads, WORKER_DRAIN, *shape.worker_flags]
            for role, count, own in (("prefill", shape.prefill, shape.prefill_flags),
                                     ("decode", shape.decode, shape.decode_flags)):
                for i in range(count):
                    gpu = shape.gpu_flags(len(instance.processes))
                    spawn(role, f"{role}-{i}", f"--name={role}-{i}", *gpu, *worker_flags, *own)
            workers = list(instance.processes)
            processes.wait_ready(workers, START_SECONDS, lambda n, of: report(f"{n} of {of} workers listen"))
            pools = [
                f"--{role}=" + ",".join(f"{w.name}={w.grpc}" for w in workers if w.role == role)
                for role in ("prefill", "decode")
            ]
            front = spawn("router", "router", *front_flags, *pools)
        processes.wait_ready([front], START_SECONDS)
        report("waiting for the router to be ready")
        _wait_serving(instance, front)
        instance.http = front.http
        instance.save()
    except BaseException:
        instance.stop()
        raise
    return instance


def model_name(instance):
    """The name under which the router serves the model."""
    status, body = get(instance.http, "/v1/models")
    if status != 200:
        raise Failure("the router does not list its model", f"/v1/models says {status}: {body[:300]}")
    return json.loads(body)["data"][0]["id"]
