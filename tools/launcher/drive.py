"""Drives a running cluster with the mixed load and holds every reply against the standalone's."""

import hashlib
import json
import queue
import statistics
import threading
import time
from dataclasses import dataclass, field

from tools.launcher import api_client, build, cluster, load, model, paths
from tools.launcher.failure import Failure

CLIENTS = 16
REQUEST_SECONDS = 120
SHOWN_FAULTS = 3
KINDS = ("short", "chat", "long")


@dataclass
class Run:
    """What came back: replies by job name, or why there are none."""

    replies: dict = field(default_factory=dict)
    faults: dict = field(default_factory=dict)
    seconds: float = 0.0

    def outcomes(self):
        return {name: [reply.outcome() for reply in replies] for name, replies in self.replies.items()}


def _do(job, address):
    replies, earlier = [], []
    for body in job.bodies:
        reply = api_client.ask(address, job.path, load.with_history(body, earlier), REQUEST_SECONDS)
        earlier.append((body.get("messages"), reply.text))
        replies.append(reply)
    return replies


def run(address, jobs, report):
    """All jobs over a bounded number of clients; `report(done, total)` as they end."""
    waiting = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    result = Run()
    lock = threading.Lock()
    started = time.monotonic()

    def client():
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                replies = _do(job, address)
            except api_client.BadReply as fault:
                with lock:
                    result.faults[job.name] = str(fault)
            else:
                with lock:
                    result.replies[job.name] = replies
            with lock:
                report(len(result.replies) + len(result.faults), len(jobs))

    clients = [threading.Thread(target=client, daemon=True) for _ in range(min(CLIENTS, len(jobs)))]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    result.seconds = time.monotonic() - started
    return result


def _expected_file(model_path, computing, jobs):
    """Keyed by all that the replies may depend on: the model, the standalone's binary, what computes, the load."""
    key = hashlib.sha256()
    for part in (model.sha256_of(model_path), model.sha256_of(build.binary("longhaul_standalone"))):
        key.update(part.encode())
    key.update(repr((computing, jobs)).encode())
    return paths.EXPECTED / f"{key.hexdigest()[:32]}.json"


def expected(progress, model_path, computing):
    """The standalone's replies to the load, from an earlier run where there is one. `computing`: what of its Shape says on what."""
    with progress.step("baseline") as step:
        standalone = None
        jobs = load.jobs("")
        file = _expected_file(model_path, computing, jobs)
        try:
            outcomes = json.loads(file.read_text())
            step.skip("the standalone's replies are known from an earlier run")
            return outcomes
        except (OSError, ValueError):
            pass
        try:
            shape = cluster.Shape(
                str(model_path), port=0, standalone=True, served_name=model.served_name(model_path), **computing
            )
            standalone = cluster.start(shape, step.update)
            jobs = load.jobs(cluster.model_name(standalone))
            result = run(standalone.http, jobs, lambda n, of: step.update(f"standalone, {n}/{of} clients", n / of))
        finally:
            if standalone:
                standalone.stop()
        _require_no_faults(result, "the standalone run")
        paths.write_atomically(file, json.dumps(result.outcomes()))
        step.done(f"{len(jobs)} clients' replies from one process")
    return result.outcomes()


def _require_no_faults(result, where):
    if result.faults:
        shown = [f"{name}: {fault}" for name, fault in sorted(result.faults.items())[:SHOWN_FAULTS]]
        raise Failure(f"{len(result.faults)} of {len(result.faults) + len(result.replies)} clients failed in {where}",
                      "\n".join(shown), "the logs are under .longhaul/logs")


def differences(outcomes, wanted):
    """Two lines for every reply that is not the standalone's: what came, what should have."""
    lines = []
    for name, replies in sorted(wanted.items()):
        got = outcomes.get(name)
        for i, want in enumerate(replies):
            have = got[i] if got and i < len(got) else None
            if have != want:
                lines.append(f"{name} turn {i}: got {json.dumps(have)[:160]}")
                lines.append(f"  the standalone says {json.dumps(want)[:160]}")
    return lines


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _ms(seconds):
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _way(headers):
    """How the prompt's KV came to the decode worker: the transport, or that there was nothing to carry."""
    way = headers.get("x-longhaul-path", "")
    return headers.get("x-longhaul-transport") or way if way == "remote" else way


def table(jobs, result):
    """The report, a row for each kind of request."""
    rows = [("class", "done", "ttft p50", "p99", "itl p50", "kv moved", "via")]
    for kind in KINDS:
        of_kind = [job for job in jobs if job.kind == kind]
        total = sum(len(job.bodies) for job in of_kind)
        replies = [reply for job in of_kind for reply in result.replies.get(job.name, ())]
        first = [reply.token_times[0] for reply in replies if reply.token_times]
        gaps = [
            (reply.token_times[-1] - reply.token_times[0]) / (len(reply.token_times) - 1)
            for reply in replies if len(reply.token_times) > 1
        ]
        moved = sum(int(reply.headers.get("x-longhaul-kv-bytes") or 0) for reply in replies)
        ways = {_way(reply.headers) for reply in replies} - {""}
        rows.append((
            kind, f"{len(replies)}/{total}", _ms(percentile(first, 0.5)), _ms(percentile(first, 0.99)),
            _ms(statistics.median(gaps) if gaps else None), f"{moved / 1e6:.0f} MB", "+".join(sorted(ways)) or "-",
        ))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def drive(progress, instance, wanted):
    """Runs the load against the cluster; a Failure when a client failed or a reply differs from `wanted`."""
    with progress.step("drive") as step:
        jobs = load.jobs(cluster.model_name(instance))
        counts = ", ".join(f"{sum(job.kind == kind for job in jobs)} {kind}" for kind in KINDS)
        step.update(f"{counts} clients")
        result = run(instance.http, jobs, lambda n, of: step.update(f"{n}/{of} clients", n / of))
        for process in instance.dead():
            raise process.died("during the drive")
        _require_no_faults(result, "the drive")
        step.done(f"{counts} clients")
        for line in table(jobs, result):
            progress.line(f"          {line}")
    with progress.step("verify") as step:
        wrong = differences(result.outcomes(), wanted)
        total = sum(len(replies) for replies in wanted.values())
        if wrong:
            raise Failure(
                f"{len(wrong) // 2} of {total} replies differ from the standalone run",
                "\n".join(wrong[: 2 * SHOWN_FAULTS]),
                "this is a fault of Longhaul's: please report it with .longhaul/logs",
            )
        step.done(f"{total}/{total} replies equal to the standalone run", timed=False)
