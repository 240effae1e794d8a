"""Counts tests, shows each suite's line and each failure, and ends with the line that people and CI read."""

import time
from dataclasses import dataclass

from tools.launcher.progress import GREEN, RED, duration

TAIL_LINES = 30


@dataclass(frozen=True)
class Result:
    name: str
    outcome: str  # "passed", "failed" or "skipped"
    detail: str = ""


class Report:
    def __init__(self, progress):
        self.progress = progress
        self.results = []

    def suite(self, name, results, seconds):
        """Adds a suite's results and prints its line and its failures."""
        self.results += results
        counts = self._counts(results)
        failed = [result for result in results if result.outcome == "failed"]
        paint = self.progress.paint
        mark = paint("FAILED", RED) if failed else paint("ok", GREEN)
        self.progress.line(f" {name:<24} {counts['passed']:>5} passed {counts['failed']:>3} failed "
                           f"{counts['skipped']:>3} skipped  {duration(seconds):>6}  {mark}")
        for result in failed:
            self.progress.line(f"   FAILED {name}: {result.name}")
            for line in result.detail.rstrip().splitlines()[-TAIL_LINES:]:
                self.progress.line(f"     | {line}")

    def broken(self, suite, name, detail):
        """Something that should have run tests could not: one failed test."""
        self.suite(suite, [Result(name, "failed", detail)], 0)

    @staticmethod
    def _counts(results):
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        for result in results:
            counts[result.outcome] += 1
        return counts

    def close(self):
        """Prints the closing line; returns the exit code."""
        counts = self._counts(self.results)
        ran = counts["passed"] + counts["failed"]
        self.progress.line()
        for result in self.results:
            if result.outcome == "failed":
                self.progress.line(f" failed: {result.name}")
        if ran == 0:
            self.progress.line(" no test ran: that counts as a failure")
        self.progress.line(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
        return 1 if counts["failed"] or ran == 0 else 0


class Stopwatch:
    def __init__(self):
        self.started = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.started
