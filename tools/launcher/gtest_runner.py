"""Runs GoogleTest binaries, as many at a time as there are cores, and reads their JSON reports."""

import concurrent.futures
import json
import os
import signal
import subprocess
from dataclasses import dataclass

from tools.launcher import paths
from tools.launcher.test_report import Result, Stopwatch

SUITES = ("unit", "contract", "sim")
BINARY_SECONDS = 300
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


@dataclass(frozen=True)
class Binary:
    name: str
    labels: tuple

    @property
    def suite(self):
        """A label says it, or the name does: contract_..., sim_...; all others are unit tests."""
        for suite in ("contract", "sim"):
            if suite in self.labels or suite in self.name.split("_"):
                return suite
        return "unit"


def binaries(folder):
    """What CMake wrote into unit_tests.txt: a name and its labels a line."""
    lines = (folder / "unit_tests.txt").read_text().splitlines()
    words = [line.replace(";", " ").split() for line in lines if line.strip()]
    return [Binary(line[0], tuple(line[1:])) for line in words]


def _chosen(folder, suite):
    if suite.startswith("sanitizers/"):
        return [binary for binary in binaries(folder) if "pure" in binary.labels]
    return [binary for binary in binaries(folder) if binary.suite == suite]


def _run_one(folder, binary, suite, pattern):
    """The results of one binary; a crash, a time-out or a missing report is one failed test more."""
    report = paths.REPORTS / suite / f"{binary.name}.json"
    paths.make(report.parent)
    report.unlink(missing_ok=True)
    command = [str(folder / "bin" / binary.name), f"--gtest_output=json:{report}"]
    if pattern:
        command.append(f"--gtest_filter=*{pattern}*")
    environment = {**SANITIZER_OPTIONS, **os.environ}
    try:
        process = subprocess.Popen(command, cwd=paths.ROOT, env=environment, stdin=subprocess.DEVNULL, text=True,
                                   errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
    except OSError as error:
        return [Result(binary.name, "failed", str(error))]
    try:
        output, _ = process.communicate(timeout=BINARY_SECONDS)
        ended = "" if process.returncode == 0 else f"exit code {process.returncode}"
        if process.returncode < 0:
            ended = f"killed by {signal.Signals(-process.returncode).name}"
    except subprocess.TimeoutExpired:
        ended = f"did not end within {BINARY_SECONDS} s"
        output = ""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            output = process.communicate()[0]
    results = _read(report, binary.name, output)
    if ended and not any(result.outcome == "failed" for result in results):
        results.append(Result(f"{binary.name} ({ended})", "failed", output))
    return results


def _read(report, binary_name, output):
    try:
        suites = json.loads(report.read_text()).get("testsuites", [])
    except (OSError, ValueError):
        return []
    results = []
    for suite in suites:
        for test in suite["testsuite"]:
            if test["status"] != "RUN":
                continue
            name = f"{binary_name}: {suite['name']}.{test['name']}"
            failures = [failure["failure"] for failure in test.get("failures", [])]
            if failures:
                results.append(Result(name, "failed", "\n".join(failures)))
            else:
                results.append(Result(name, "skipped" if test["result"] == "SKIPPED" else "passed"))
    return results


def run(report, machine, folder, suite, pattern):
    """Runs a suite's binaries and hands the results to `report`."""
    watch = Stopwatch()
    chosen = _chosen(folder, suite)
    if not chosen:
        return
    results = []
    with concurrent.futures.ThreadPoolExecutor(max(1, machine.cores)) as pool:
        for found in pool.map(lambda binary: _run_one(folder, binary, suite, pattern), chosen):
            results += found
    report.suite(suite, results, watch.seconds())
