"""Shows the steps of a command.

On a terminal a running step is one line redrawn in place. Elsewhere every event is one plain line, and a running step
prints one at every tenth of its way. Colour only on a terminal, and never when NO_COLOR is set.
"""

import os
import shutil
import sys
import threading
import time

NAME_WIDTH = 8
BAR_WIDTH = 24
REDRAW_SECONDS = 0.1
PLAIN_SHARE = 0.1

BOLD, DIM, GREEN, RED, YELLOW = "1", "2", "32", "31", "33"


def duration(seconds):
    """0.42s, 9s, 1m40s."""
    if seconds < 1:
        return f"{seconds:.2f}s"
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"


class Progress:
    """The screen. Any thread may call a step; lines never mix."""

    def __init__(self, stream=None, tty=None, color=None, clock=time.monotonic):
        self.stream = stream or sys.stdout
        self.tty = self.stream.isatty() if tty is None else tty
        wants_color = self.tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.color = wants_color if color is None else color
        self.clock = clock
        self._lock = threading.RLock()
        self._live = False

    def paint(self, text, code):
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def line(self, text=""):
        """A finished line."""
        with self._lock:
            self._erase()
            self.stream.write(text + "\n")
            self.stream.flush()

    def redraw(self, text):
        """The line of the running step; only on a terminal."""
        with self._lock:
            columns = shutil.get_terminal_size().columns
            self._erase()
            self.stream.write(text[: columns - 1])
            self.stream.flush()
            self._live = True

    def _erase(self):
        if self._live:
            self.stream.write("\r\x1b[K")
            self._live = False

    def step(self, name):
        return Step(self, name)


class Step:
    """One step: any number of updates, then done, skip or fail. As a context it reports failure by itself."""

    def __init__(self, progress, name):
        self.progress = progress
        self.name = name
        self.started = progress.clock()
        self._drawn_at = -1.0
        self._share_printed = 0.0
        self._text_printed = None
        self._finished = False

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None and not self._finished:
            self.fail("interrupted" if kind is KeyboardInterrupt else "failed")

    def _label(self):
        return f" {self.name:<{NAME_WIDTH}} "

    def elapsed(self):
        return self.progress.clock() - self.started

    def update(self, text, share=None, eta_seconds=None):
        """`share` in [0, 1] when the step knows how far it is."""
        eta = f"  eta {duration(eta_seconds)}" if eta_seconds is not None and share != 1 else ""
        if self.progress.tty:
            now = self.progress.clock()
            if now - self._drawn_at < REDRAW_SECONDS and share != 1:
                return
            self._drawn_at = now
            bar = ""
            if share is not None:
                full = int(BAR_WIDTH * min(max(share, 0), 1))
                bar = "[" + "#" * full + "." * (BAR_WIDTH - full) + "] "
            self.progress.redraw(f"{self._label()}{bar}{text}{eta}")
            return
        if share is None:
            if text != self._text_printed:
                self._text_printed = text
                self.progress.line(f"{self._label()}{text}")
        elif share - self._share_printed >= PLAIN_SHARE and share < 1:
            self._share_printed = share
            self.progress.line(f"{self._label()}{share:4.0%} {text}{eta}")

    def note(self, text):
        """A line that stays on the screen while the step goes on."""
        self.progress.line(f"{self._label()}{text}")

    def done(self, text, timed=True):
        self._finished = True
        paint = self.progress.paint
        took = paint(f"  {duration(self.elapsed())}", DIM) if timed else ""
        self.progress.line(f" {paint(f'{self.name:<{NAME_WIDTH}}', GREEN)} {text}{took}")

    def skip(self, reason):
        self._finished = True
        paint = self.progress.paint
        self.progress.line(f" {paint(f'{self.name:<{NAME_WIDTH}}', DIM)} {paint('skipped: ' + reason, DIM)}")

    def fail(self, text):
        self._finished = True
        paint = self.progress.paint
        self.progress.line(f" {paint(f'{self.name:<{NAME_WIDTH}}', RED)} {text}")
