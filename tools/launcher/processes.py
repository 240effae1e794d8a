"""Child processes: starting them, knowing whether they live, stopping them, and the file that remembers them.

A process is known by its id and its start time, so an id that the system has given to somebody else is never signalled.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field

from tools.launcher import paths
from tools.launcher.failure import Failure

POLL_SECONDS = 0.02
STOP_GRACE_SECONDS = 10
STOP_ORDER = (("router", "standalone"), ("decode",), ("prefill",))
LOG_TAIL_LINES = 12
PR_SET_PDEATHSIG = 1


def start_ticks(pid):
    """The start time of a live process in the kernel's ticks; None for a dead one or a zombie."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def log_tail(path, lines=LOG_TAIL_LINES):
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return str(error)
    return "\n".join(text.strip().splitlines()[-lines:]) or "(its log is empty)"


@dataclass
class Process:
    """One process of ours; `grpc` and `http` are its addresses once it listens."""

    role: str
    name: str
    pid: int
    ticks: int
    log: str
    ready_file: str
    grpc: str = ""
    http: str = ""
    child: subprocess.Popen = field(default=None, repr=False, compare=False)

    @property
    def address(self):
        return self.grpc or self.http

    def alive(self):
        if self.child is not None:
            return self.child.poll() is None
        return start_ticks(self.pid) == self.ticks

    def signal(self, number):
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def how_it_ended(self):
        code = self.child.poll() if self.child is not None else None
        if code is None:
            return "it is gone"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def died(self, when):
        return Failure(
            f"{self.name} died {when} ({self.how_it_ended()})",
            f"the end of its log:\n{log_tail(self.log)}",
            f"all of it is in {self.log}",
        )

    def read_ready_file(self):
        """Takes the addresses over once the process has written them; True then."""
        try:
            facts = json.loads(pathlib.Path(self.ready_file).read_text())
        except FileNotFoundError:
            return False
        self.grpc = facts.get("grpc") or ""
        self.http = facts.get("http") or ""
        return True


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def spawn(role, name, command, log, ready_file, detached):
    """Starts one. A detached one outlives the launcher; the others are told to stop when the launcher dies, however."""
    paths.make(log.parent)
    paths.make(ready_file.parent)
    ready_file.unlink(missing_ok=True)
    if not pathlib.Path(command[0]).exists():
        raise Failure(f"{command[0]} does not exist", "it has not been built", "./longhaul up builds it")
    with open(log, "wb") as output:
        child = subprocess.Popen(
            [*map(str, command), f"--ready_file={ready_file}"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=paths.ROOT,
            start_new_session=True, preexec_fn=None if detached else _die_with_parent,
        )
    return Process(role, name, child.pid, start_ticks(child.pid) or 0, str(log), str(ready_file), child=child)


def wait_ready(processes, timeout_seconds, report=None):
    """Until each has written its ready file. A death among them is a Failure that names the one."""
    deadline = time.monotonic() + timeout_seconds
    waiting = list(processes)
    while waiting:
        for process in processes:
            if not process.alive():
                raise process.died("while starting")
        waiting = [process for process in waiting if not process.read_ready_file()]
        if report:
            report(len(processes) - len(waiting), len(processes))
        if waiting and time.monotonic() > deadline:
            slow = waiting[0]
            raise Failure(
                f"{slow.name} did not start listening within {timeout_seconds:.0f} s",
                f"the end of its log:\n{log_tail(slow.log)}", f"all of it is in {slow.log}",
            )
        if waiting:
            time.sleep(POLL_SECONDS)


def stop(processes, grace_seconds=STOP_GRACE_SECONDS):
    """SIGTERM, and SIGKILL for those that are left after the grace. Returns the names of the killed."""
    deadline = time.monotonic() + grace_seconds
    try:
        for process in processes:
            process.signal(signal.SIGTERM)
        while any(process.alive() for process in processes) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    finally:
        # Also on a second Ctrl-C, which means: now.
        killed = [process for process in processes if process.alive()]
        for process in killed:
            process.signal(signal.SIGKILL)
        for process in processes:
            if process.child is not None:
                process.child.wait()
            pathlib.Path(process.ready_file).unlink(missing_ok=True)
    return [process.name for process in killed]


@dataclass
class Instance:
    """What runs behind one HTTP port, as .longhaul/run/<name>.json remembers it."""

    name: str
    options: dict  # Shape.options of what was asked for
    binaries: str  # digest of what was started
    launcher_pid: int  # 0 when detached
    launcher_ticks: int
    processes: list
    http: str = ""

    @property
    def port(self):
        return int(self.http.rpartition(":")[2]) if self.http else 0

    @property
    def file(self):
        return paths.RUN / f"{self.name}.json"

    def attended(self):
        """True while the launcher that holds it in the foreground lives."""
        return self.launcher_pid != 0 and start_ticks(self.launcher_pid) == self.launcher_ticks

    def dead(self):
        return [process for process in self.processes if not process.alive()]

    def save(self):
        facts = asdict_without_child(self)
        paths.write_atomically(self.file, json.dumps(facts, indent=1))

    def stop(self):
        """Who is in front first and alone, so that running answers end well; then who decodes; then who prefills."""
        killed = []
        waiting = [[process for process in self.processes if process.role in roles] for roles in STOP_ORDER]
        try:
            while waiting:
                killed += stop(waiting.pop(0))
        finally:
            for group in waiting:  # a second Ctrl-C came
                stop(group, 0)
            self.file.unlink(missing_ok=True)
        return killed


def asdict_without_child(instance):
    children = [process.child for process in instance.processes]
    for process in instance.processes:
        process.child = None
    try:
        facts = asdict(instance)
    finally:
        for process, child in zip(instance.processes, children):
            process.child = child
    for process in facts["processes"]:
        del process["child"]
    return facts


def load_instances():
    """All that is remembered, live or not."""
    instances = []
    for file in sorted(paths.RUN.glob("*.json")) if paths.RUN.exists() else []:
        try:
            facts = json.loads(file.read_text())
            facts["processes"] = [Process(**process) for process in facts["processes"]]
            instances.append(Instance(**facts))
        except (ValueError, TypeError, KeyError):
            # Not of this version's making; nothing in it can be trusted enough to be signalled.
            file.unlink(missing_ok=True)
    return instances
