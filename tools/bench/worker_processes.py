"""Workers and routers as processes of one host, for benchmarks: started, read, stopped. Standard library only, so that it runs
where nothing of Longhaul is installed."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time

START_SECONDS = 120
POLL_SECONDS = 0.02
SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


class Process:
    """One of ours; `grpc` and `http` are known once it is ready."""

    def __init__(self, binary, name, flags, folder, environment):
        self.name = name
        self.log = folder / f"{name}.log"
        self._ready = folder / f"{name}.json"
        self.grpc = self.http = ""
        with open(self.log, "w", encoding="utf-8") as log:
            self._child = subprocess.Popen([binary, f"--name={name}", f"--ready_file={self._ready}", *flags], stdout=log,
                                           stderr=subprocess.STDOUT, env=environment)

    def ready(self):
        if self._child.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self._child.returncode}:\n{self.log.read_text()[-2000:]}")
        if not self._ready.exists():
            return False
        facts = json.loads(self._ready.read_text())
        self.grpc, self.http = facts.get("grpc", ""), facts["http"]
        return True

    def metrics(self):
        """{(name, ((label, value), ...) without role and worker): number}."""
        connection = http.client.HTTPConnection(self.http, timeout=10)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        found = {}
        for name, labels, value in SAMPLE.findall(text):
            kept = tuple((key, word) for key, word in LABEL.findall(labels) if key not in ("role", "worker"))
            found[name, kept] = float(value)
        return found

    def stop(self):
        self._child.terminate()
        try:
            self._child.wait(15)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Host:
    """Starts processes, and stops all of them at the end of a `with`."""

    def __init__(self, bin_folder, model, environment):
        self._bin = pathlib.Path(bin_folder)
        self._model = model
        self._environment = environment
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="longhaul-bench-"))
        self._processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self._processes):
            process.stop()

    def start(self, role, name, *flags):
        process = Process(self._bin / f"longhaul_{role}", name, [f"--model={self._model}", *flags], self._folder,
                          self._environment)
        self._processes.append(process)
        return process

    def wait(self, *processes):
        give_up = time.monotonic() + START_SECONDS
        while not all([process.ready() for process in processes]):
            if time.monotonic() > give_up:
                raise RuntimeError(f"not ready after {START_SECONDS} s: {[p.name for p in processes if not p.ready()]}")
            time.sleep(POLL_SECONDS)

    def start_router(self, name, prefill, *decode, flags=()):
        """A router that has ready workers. `prefill` None: the decode workers compute their prompts."""
        decode_list = ",".join(f"{worker.name}={worker.grpc}" for worker in decode)
        if prefill:
            flags = [f"--prefill={prefill.name}={prefill.grpc}", "--local_prefill=false", *flags]
        router = self.start("router", name, f"--decode={decode_list}", "--http=127.0.0.1:0", *flags)
        self.wait(router)
        give_up = time.monotonic() + START_SECONDS
        while True:
            connection = http.client.HTTPConnection(router.http, timeout=10)
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return router
            if time.monotonic() > give_up:
                raise RuntimeError(f"{name} has no ready workers:\n{router.log.read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def multi_process_service():
    """CUDA's MPS for the processes that get the environment: their kernels run side by side instead of in time slices."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="longhaul-mps-"))
    environment = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    subprocess.run(["nvidia-cuda-mps-control", "-d"], env=environment, check=True, timeout=20)
    try:
        yield environment
    finally:
        subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", env=environment, check=False, timeout=20)
