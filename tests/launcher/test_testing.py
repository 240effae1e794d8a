"""The test runner counts what ran, and never calls nothing a success."""

import io
import json

import pytest

from tools.launcher import doctor, gtest_runner, pytest_runner, testing
from tools.launcher.progress import Progress
from tools.launcher.test_report import Report, Result

PASSING = {"name": "A", "status": "RUN", "result": "COMPLETED"}
FAILING = PASSING | {"name": "B", "failures": [{"failure": "x.cc:3 expected 1"}]}
SKIPPED = PASSING | {"name": "C", "result": "SKIPPED"}
FILTERED = PASSING | {"name": "D", "status": "NOTRUN"}


@pytest.fixture
def report():
    return Report(Progress(io.StringIO(), tty=False))


@pytest.fixture
def folder(home):
    """A build folder of GoogleTest look-alikes: add(name, tests, exit code)."""
    (home / "build" / "bin").mkdir(parents=True)

    def add(name, tests, code=0, labels=""):
        body = json.dumps({"testsuites": [{"name": "Suite", "testsuite": tests}]})
        binary = home / "build" / "bin" / name
        write = f"cat > ${{1#--gtest_output=json:}} <<'END'\n{body}\nEND\n" if tests is not None else ""
        binary.write_text(f"#!/bin/sh\n{write}echo words; {'kill -SEGV $$' if code < 0 else f'exit {code}'}\n")
        binary.chmod(0o755)
        with open(home / "build" / "unit_tests.txt", "a", encoding="utf-8") as listing:
            listing.write(f"{name} {labels}\n")

    add.path = home / "build"
    return add


def run(report, folder, suite="unit"):
    gtest_runner.run(report, doctor.look(), folder.path, suite, "")
    return [(result.name, result.outcome) for result in report.results]


def test_counts_each_outcome_and_leaves_out_what_was_filtered(report, folder):
    folder("one_test", [PASSING, FAILING, SKIPPED, FILTERED], 1)
    assert [outcome for _, outcome in run(report, folder)] == ["passed", "failed", "skipped"]
    assert report.close() == 1
    said = report.progress.stream.getvalue()
    assert said.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"
    assert "x.cc:3 expected 1" in said


def test_a_crash_is_a_failure(report, folder):
    folder("crash_test", None, -11)
    ((name, outcome),) = run(report, folder)
    assert outcome == "failed" and "SIGSEGV" in name


def test_a_bad_exit_after_passing_tests_is_a_failure(report, folder):
    folder("leak_test", [PASSING], 23)
    assert [outcome for _, outcome in run(report, folder)] == ["passed", "failed"]


def test_a_missing_binary_is_a_failure(report, folder):
    folder("lost_test", [PASSING])
    (folder.path / "bin" / "lost_test").unlink()
    assert [outcome for _, outcome in run(report, folder)] == ["failed"]


def test_one_that_hangs_is_killed(report, folder, monkeypatch):
    folder("hang_test", None)
    (folder.path / "bin" / "hang_test").write_text("#!/bin/sh\nsleep 60\n")
    monkeypatch.setattr(gtest_runner, "BINARY_SECONDS", 0.2)
    ((name, outcome),) = run(report, folder)
    assert outcome == "failed" and "did not end" in name


def test_suites_are_told_apart_by_label_and_name(folder):
    folder("loop_contract_test", [PASSING])
    folder("sim_handoff_test", [PASSING])
    folder("blocks_test", [PASSING], labels="pure")
    folder("labelled_test", [PASSING], labels="pure;contract")
    assert {binary.name: binary.suite for binary in gtest_runner.binaries(folder.path)} == {
        "loop_contract_test": "contract", "sim_handoff_test": "sim", "blocks_test": "unit", "labelled_test": "contract",
    }


def test_sanitizers_run_the_pure_ones(report, folder):
    folder("pure_test", [PASSING], labels="pure")
    folder("wire_test", [PASSING])
    assert len(run(report, folder, "sanitizers/asan")) == 1


def test_no_test_at_all_is_a_failure(report):
    assert report.close() == 1
    assert report.progress.stream.getvalue().endswith("0 passed, 0 failed, 0 skipped\n")


def test_only_skipped_tests_are_a_failure(report):
    report.suite("unit", [Result("a", "skipped")], 0)
    assert report.close() == 1


def test_every_python_test_file_belongs_to_one_suite():
    here = [file for suite in testing.SUITES for file in pytest_runner.files(suite)]
    assert len(here) == len(set(here))
    assert set(here) == set((pytest_runner.paths.ROOT / "tests").rglob("test_*.py"))
