"""Runs parts of the checks, each step within its time limit and all of them within one, and keeps what each has shown: a log,
and a JSON file that is written anew after every step, so that whatever ends the run leaves the rest."""

import collections
import json
import re
import sys
import threading
import time

from tools.bench import commands
from tools.gpu import machine, orphans
from tools.gpu.parts import ROOT

COUNTS = {"gtest": re.compile(r"\[  (?P<kind>PASSED|SKIPPED|FAILED)  ?\] (?P<count>\d+) tests?"),
          "pytest": re.compile(r"(?P<count>\d+) (?P<kind>passed|failed|skipped)")}
CASE = re.compile(r"^  (\S+)")
PYTEST_NO_TESTS = 5  # its exit code where a whole file is skipped
LAST_SECONDS = 5  # a step that has less does not begin
TAIL_CHARS = 3000


def counts(step, code, text):
    """{passed, failed, skipped: how many}; a run that ends badly without naming a failed test counts as one."""
    if step.kind == "figures":
        return {}
    summary = text.splitlines()[-1:] if step.kind == "pytest" else text.splitlines()
    found = {match["kind"].lower(): int(match["count"]) for line in summary for match in COUNTS[step.kind].finditer(line)}
    if code != 0:
        found["failed"] = max(1, found.get("failed", 0))
    return found


class Run:
    def __init__(self, out, seconds):
        self._out = out
        self._end = time.monotonic() + seconds if seconds else float("inf")
        self._steps = []
        self._machine = machine.described()
        self._environment = machine.environment(ROOT)
        out.mkdir(parents=True, exist_ok=True)
        self._log = open(out / "log.txt", "w", encoding="utf-8", errors="replace")
        orphans.adopt()
        self._say("\n".join(self._machine))

    def totals(self):
        return sum((collections.Counter(step["tests"]) for step in self._steps), collections.Counter())

    def failed(self):
        return [step["name"] for step in self._steps if step["exit"] != 0]

    def skip(self, part, why):
        self._keep(part.name, {"name": part.name, "exit": 0, "skipped": why, "tests": {}})
        self._say(f"== {part.name}: skipped: {why}")

    def part(self, part):
        end = min(self._end, time.monotonic() + part.seconds)
        for step in part.steps():
            self._step(part, step, end)

    def _step(self, part, step, end):
        seconds = min(step.seconds, end - time.monotonic())
        name = " ".join((step.name, *map("=".join, step.environment)))
        if seconds < LAST_SECONDS:
            self._say(f"== {name}: no time left for it")
            self._keep(part.name, {"name": name, "exit": commands.TIMED_OUT, "skipped": "no time left", "tests": {}})
            return
        words = list(map(str, step.command))
        figures = self._out / f"{step.name}.json"
        if step.writes_json:
            figures.unlink(missing_ok=True)
            words += ["--json", str(figures)]
        self._say(f"-- {name}, at most {seconds:.0f} s: {' '.join(words)}")
        begun = time.monotonic()
        code, text = self._output_of(words, seconds, step)
        if step.kind == "pytest" and code == PYTEST_NO_TESTS:
            code = 0
        took = time.monotonic() - begun
        left = orphans.end()
        row = {"name": name, "command": words, "exit": code, "seconds": round(took, 1), "tests": counts(step, code, text)}
        if step.writes_json and figures.exists():
            row["figures"] = json.loads(figures.read_text(encoding="utf-8"))
            figures.unlink()
        if step.kind == "figures":
            row["output"] = text.splitlines()
        if code != 0 and not step.shown:
            self._say(text[-TAIL_CHARS:], logged=True)
        self._say(f"== {name}: {'ok' if code == 0 else 'ran out of time' if code == commands.TIMED_OUT else f'exit {code}'}, "
                  f"{took:.0f} s{f', {left} processes were left and ended' if left else ''} {row['tests'] or ''}")
        self._keep(part.name, row)

    def close(self):
        total = self.totals()
        self._say(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped"
                  + (f"; not ok: {', '.join(self.failed())}" if self.failed() else ""))
        self._log.close()

    def _output_of(self, words, seconds, step):
        """(exit code, text); the text goes to the log, and to whoever looks on, while it comes."""
        begin = self._log.tell()
        stop = threading.Event()
        watcher = threading.Thread(target=self._show, args=(begin, stop), daemon=True)
        if step.shown:
            watcher.start()
        code, _ = commands.run(words, seconds, {**self._environment, **dict(step.environment)}, self._log)
        stop.set()
        if step.shown:
            watcher.join()
        self._log.seek(0, 2)
        with open(self._log.name, encoding="utf-8", errors="replace") as log:
            log.seek(begin)
            return code, log.read()

    def _show(self, begin, stop):
        with open(self._log.name, encoding="utf-8", errors="replace") as log:
            log.seek(begin)
            while True:
                last = stop.is_set()
                sys.stdout.write(log.read())
                sys.stdout.flush()
                if last:
                    return
                stop.wait(0.5)

    def _say(self, text, logged=False):
        print(text, flush=True)
        if not logged:
            self._log.write(text + "\n")
            self._log.flush()

    def _keep(self, part, row):
        self._steps.append({"part": part, **row})
        (self._out / "summary.json").write_text(
            json.dumps({"machine": self._machine, "tests": self.totals(), "steps": self._steps}, indent=1), encoding="utf-8")


def run(parts, out, seconds):
    """The exit code: 1 when a test failed or a step did not end well."""
    whole = Run(out, seconds)
    gpus = machine.gpu_count()
    for part in parts:
        if part.gpus > gpus:
            whole.skip(part, f"takes {part.gpus} GPUs, {gpus or 'none'} here")
        else:
            whole.part(part)
    whole.close()
    return 1 if whole.failed() else 0
