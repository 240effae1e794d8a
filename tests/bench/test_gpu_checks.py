"""What a run of the GPU checks keeps of steps that hang, fail, or leave something behind. In a process of its own, which ends all
that its steps leave running."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tools.bench import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLEEP = "sleep 987"
PROGRAM = """
import os, pathlib, sys
from tools.gpu import machine, running
from tools.gpu.parts import Part, Step
machine.environment = lambda root: dict(os.environ)
machine.gpu_count = lambda: 1
write = "import sys; print('told'); open(sys.argv[-1], 'w').write('[1.5]')"
steps = [
    Step("figures", (sys.executable, "-c", write), 30, writes_json=True),
    Step("hangs", ("bash", "-c", "echo begun; setsid SLEEP & (setsid SLEEP &); SLEEP"), 6),
    Step("fails", ("bash", "-c", "echo '[  PASSED  ] 2 tests.'; echo '[  FAILED  ] 1 test, listed below:'; exit 1"), 30, "gtest"),
    Step("crashes", ("bash", "-c", "echo '[  PASSED  ] 2 tests.'; exit 134"), 30, "gtest"),
    Step("after", ("echo", "[  PASSED  ] 3 tests."), 30, "gtest", shown=False, environment=(("A", "B"),)),
]
late = [Step("long", ("sleep", "3"), 30), Step("late", ("echo", "never"), 30)]
parts = [Part("one", "", lambda: steps, ()), Part("two", "", lambda: steps, (), gpus=2), Part("short", "", lambda: late, (), seconds=7)]
sys.exit(running.run(parts, pathlib.Path(sys.argv[1]), 0))
""".replace("SLEEP", SLEEP)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(exit code, what was printed, summary by step, the log)."""
    out = tmp_path_factory.mktemp("out")
    code, text = commands.run([sys.executable, "-c", PROGRAM, out], 60, {**os.environ, "PYTHONPATH": str(ROOT)})
    summary = json.loads((out / "summary.json").read_text())
    return code, text, summary | {"steps": {step["name"]: step for step in summary["steps"]}}, (out / "log.txt").read_text()


def test_every_step_keeps_its_outcome(run):
    code, text, summary, log = run
    steps = summary["steps"]
    assert code == 1
    assert steps["figures"]["figures"] == [1.5] and steps["figures"]["output"] == ["told"]
    assert steps["hangs"]["exit"] == commands.TIMED_OUT and "begun" in log
    assert steps["fails"]["tests"] == {"passed": 2, "failed": 1}
    assert steps["crashes"]["tests"] == {"passed": 2, "failed": 1}
    assert steps["after A=B"]["exit"] == 0
    assert summary["tests"] == {"passed": 7, "failed": 2}
    assert "7 passed, 2 failed" in text.splitlines()[-1]


def test_a_part_has_no_more_time_than_its_own_and_no_part_lacks_gpus(run):
    _, text, summary, _ = run
    assert summary["steps"]["long"]["exit"] == 0
    assert summary["steps"]["late"] == {"part": "short", "name": "late", "exit": commands.TIMED_OUT, "skipped": "no time left",
                                        "tests": {}}
    assert "takes 2 GPUs, 1 here" in summary["steps"]["two"]["skipped"] and "never" not in text


def test_nothing_is_left_running(run):
    _, text, _, _ = run
    assert "processes were left and ended" in text
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert SLEEP not in running


def test_a_command_that_hangs_is_ended_with_what_it_started_and_keeps_its_output():
    code, text = commands.run(["bash", "-c", "echo begun; sleep 988 & sleep 988"], 1)
    assert (code, text) == (commands.TIMED_OUT, "begun\n")
    assert commands.run(["bash", "-c", "echo told >&2; exit 3"], 10) == (3, "told\n")
