"""Requests that can be watched and left, and what a cluster says of itself while something goes wrong."""

import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import re
import socket
import threading
import time

from tools.launcher import cluster, processes

POLL_SECONDS = 0.05
WAIT_SECONDS = 240  # for something that must come; how soon it comes is no matter here
SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
WORKER_ROLES = ("prefill", "decode")
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WAIT_FOR_THREAD = 0x4206, 0x4207, 17, 0x40000000  # sys/ptrace.h, wait.h


def metric(process, name, **labels):
    """The sum over the samples of `name` that have these labels."""
    status, text = cluster.get(process.http, "/metrics", 30)
    assert status == 200, f"{process.name}: {status} {text[:200]}"
    total, found = 0.0, False
    for line in text.splitlines():
        match = SAMPLE.match(line)
        if not match or match["name"] != name:
            continue
        own = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"] or ""))
        if all(own.get(label) == value for label, value in labels.items()):
            total, found = total + float(match["value"]), True
    assert found, f"{process.name} has no {name} {labels}"
    return total


def live_blocks(process):
    return metric(process, "longhaul_worker_kv_blocks", state="live")


def running(process):
    return metric(process, "longhaul_worker_requests_running")


def queued(process):
    return metric(process, "longhaul_worker_requests_queued")


def generated_tokens(process):
    return metric(process, "longhaul_worker_tokens_total", kind="output")


def of_role(instance, role):
    return [process for process in instance.processes if process.role == role]


def wait_for(what, holds, seconds=WAIT_SECONDS):
    """Until holds() is true; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (result := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)
    return result


def wait_until_nothing_is_held(instance):
    """Until no live process of the cluster holds a KV block or a request."""
    def held():
        rows = {}
        for process in instance.processes:
            if process.role in WORKER_ROLES and process.alive():
                rows[process.name] = (live_blocks(process), running(process), queued(process))
            elif process.alive():
                rows[process.name] = (metric(process, "longhaul_requests_in_flight"),)
        return {name: row for name, row in rows.items() if any(row)}

    deadline = time.monotonic() + WAIT_SECONDS
    while left := held():
        assert time.monotonic() < deadline, f"still held (live blocks, running, queued): {left}"
        time.sleep(POLL_SECONDS)


def wait_until_ready(instance, **counts):
    """wait_until_ready(instance, prefill=2, decode=2): until the router sees so many workers ready."""
    (router,) = of_role(instance, "router")
    for role, count in counts.items():
        wait_for(f"{count} {role} workers are ready",
                 lambda role=role, count=count: metric(router, "longhaul_workers", role=role, state="ready") == count)


def restart(instance, process):
    """Kills the only worker of its role, lets the router see it, and starts it anew on its ports."""
    with open(f"/proc/{process.pid}/cmdline", "rb") as file:
        command = [word.decode() for word in file.read().split(b"\0")[:-1]]
    kill(process)
    wait_until_ready(instance, **{process.role: 0})
    flags = [word for word in command[1:] if not word.startswith(("--listen=", "--http=", "--ready_file="))]
    flags += [f"--listen={process.grpc}", f"--http={process.http}"]
    log, ready = pathlib.Path(process.log), pathlib.Path(process.ready_file)
    again = processes.spawn(process.role, process.name, [command[0], *flags], log, ready, False)
    processes.wait_ready([again], cluster.START_SECONDS)
    process.pid, process.ticks, process.child = again.pid, again.ticks, again.child
    wait_until_ready(instance, **{process.role: 1})


def kill(process):
    process.child.kill()
    process.child.wait()


def _ptrace(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of thread {thread}")


@contextlib.contextmanager
def hung(process, name):
    """One thread of the process stands still, as under a debugger; the others, gRPC's among them, run on."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task")
    (thread,) = (int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == name)
    _ptrace(PTRACE_SEIZE, thread)
    try:
        _ptrace(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WAIT_FOR_THREAD)
        yield
    finally:
        _ptrace(PTRACE_DETACH, thread)


class Request:
    """A streamed completion under way on a thread of its own."""

    def __init__(self, instance, prompt, **options):
        self.status = 0
        self.headers = {}
        self.tokens = []
        self.text = ""
        self.finish = ""
        self.error = None  # the server's error object, before or in the stream
        self.whole = False  # the stream ended with [DONE]
        body = {"prompt": prompt, "temperature": 0, "stream": True, "return_token_ids": True, "max_tokens": 8}
        self._body = json.dumps(body | options)
        self._connection = http.client.HTTPConnection(instance.http, timeout=WAIT_SECONDS)
        self._connection.connect()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._connection.request("POST", "/v1/completions", self._body, {"content-type": "application/json"})
            reply = self._connection.getresponse()
            self.headers = {name.lower(): value for name, value in reply.getheaders()}
            self.status = reply.status
            if reply.status != 200:
                self.error = json.loads(reply.read())["error"]
                return
            for line in reply:
                if line.startswith(b"data: "):
                    self._take(line[len(b"data: "):].strip())
        except (OSError, http.client.HTTPException, ValueError):
            pass  # it was left, or the router died: `whole` stays false

    def _take(self, data):
        if data == b"[DONE]":
            self.whole = True
            return
        event = json.loads(data)
        if "error" in event:
            self.error = event["error"]
        for choice in event.get("choices") or ():
            self.text += choice["text"]
            self.finish = choice["finish_reason"] or self.finish
            self.tokens = self.tokens + (choice.get("token_ids") or [])

    def under_way(self):
        return self._thread.is_alive()

    def leave(self):
        """The client is gone: its socket is closed, whatever was on its way."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_SECONDS)
        self._connection.close()

    def end(self):
        """Waits for the answer's end; returns self."""
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive(), "a request hangs"
        self._connection.close()
        return self

    def outcome(self):
        return self.tokens, self.text, self.finish, self.whole, self.error
