"""What a step looks like on a terminal and off it."""

import io

import pytest

from tools.launcher.progress import Progress, duration


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_off_a_terminal_every_event_is_one_plain_line():
    out = io.StringIO()
    step = Progress(out, tty=False, clock=Clock()).step("build")
    for n in range(1, 101):
        step.update(f"{n}/100", n / 100)
    step.done("100 steps")
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue() and "\r" not in out.getvalue()
    assert len([line for line in lines if "/100" in line]) == 9
    assert lines[-1].startswith(" build") and "100 steps" in lines[-1]


def test_on_a_terminal_a_running_step_redraws_its_line():
    out = io.StringIO()
    step = Progress(out, tty=True, color=False, clock=Clock()).step("model")
    step.update("1 MB", 0.5, eta_seconds=61)
    step.update("2 MB", 1.0)
    step.done("here")
    said = out.getvalue()
    assert said.count("\n") == 1
    assert "[############............] 1 MB  eta 1m01s" in said
    assert said.count("\r\x1b[K") == 2


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    progress = Progress(out, tty=True)
    progress.step("x").skip("nothing to do")
    assert "\x1b[" not in out.getvalue()
    assert "skipped: nothing to do" in out.getvalue()


def test_a_step_that_raises_says_failed():
    out = io.StringIO()
    with pytest.raises(RuntimeError):
        with Progress(out, tty=False).step("build"):
            raise RuntimeError
    assert "failed" in out.getvalue()


@pytest.mark.parametrize("seconds, text", [(0.25, "0.25s"), (9.04, "9.0s"), (59, "59s"), (100, "1m40s")])
def test_duration(seconds, text):
    assert duration(seconds) == text
