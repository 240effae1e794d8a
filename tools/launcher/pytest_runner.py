"""Runs the Python tests in the private venv, one pytest a suite, and reads its JUnit report."""

import os
import subprocess
import xml.etree.ElementTree

from tools.launcher import paths, python
from tools.launcher.test_report import Result, Stopwatch

# Folders of tests/ with a suite of their own; every other test_*.py is a unit test beside its room.
FOLDERS = {"tidy": "tidy", "e2e": "e2e", "gpu": "e2e", "sim": "sim", "contract": "contract"}
SUITE_SECONDS = 1500
TEST_SECONDS = 300
NO_TESTS = 5  # pytest's exit code


def files(suite):
    """The test files of a suite, sorted."""
    tests = paths.ROOT / "tests"
    found = []
    for file in sorted(tests.rglob("test_*.py")):
        folder = file.relative_to(tests).parts[0]
        if next((name for name, home in FOLDERS.items() if home == folder), "unit") == suite:
            found.append(file)
    return found


def run(report, suite, pattern):
    chosen = files(suite)
    if not chosen:
        return
    watch = Stopwatch()
    xml_path = paths.make(paths.REPORTS / suite) / "pytest.xml"
    xml_path.unlink(missing_ok=True)
    command = [python.interpreter(), "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={xml_path}",
               f"--timeout={TEST_SECONDS}", f"--rootdir={paths.ROOT}", *chosen]
    if pattern:
        command += ["-k", pattern]
    log_path = paths.make(paths.LOGS) / f"pytest-{suite}.log"
    with open(log_path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(list(map(str, command)), cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, env=dict(os.environ, PYTHONPATH=str(paths.ROOT)))
        try:
            code = process.wait(timeout=SUITE_SECONDS)
            ended = f"pytest's exit code {code}"
        except subprocess.TimeoutExpired:
            code, ended = -1, f"did not end within {SUITE_SECONDS} s"
        finally:
            if process.poll() is None:
                # pytest's own end stops the servers that its fixtures started.
                process.terminate()
                process.wait()
    results = _read(xml_path)
    if code not in (0, NO_TESTS) and not any(result.outcome == "failed" for result in results):
        results.append(Result(f"{suite} ({ended})", "failed", log_path.read_text(encoding="utf-8", errors="replace")))
    report.suite(suite if suite in ("tidy", "e2e") else f"{suite} (python)", results, watch.seconds())


def _read(xml_path):
    try:
        root = xml.etree.ElementTree.parse(xml_path).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return []
    results = []
    for case in root.iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if bad is not None:
            results.append(Result(name, "failed", bad.text or bad.get("message")))
        else:
            results.append(Result(name, "skipped" if case.find("skipped") is not None else "passed"))
    return results
