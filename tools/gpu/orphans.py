"""What a step of a run leaves running: it becomes ours when its parent ends, and is ended before the next step begins."""

import ctypes
import os
import pathlib
import signal
import time

PR_SET_CHILD_SUBREAPER = 36
GIVE_UP_SECONDS = 10
POLL_SECONDS = 0.05


def adopt():
    """From now on this process is the parent of every descendant whose own parent has ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _children():
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid():
            yield int(folder.name)


def end():
    """Kills all children, and theirs as they come to us; when nothing else of ours runs. How many there were. One that a driver
    does not let go is left."""
    ended, give_up = set(), time.monotonic() + GIVE_UP_SECONDS
    while (children := list(_children())) and time.monotonic() < give_up:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, os.WNOHANG)
        ended.update(children)
        time.sleep(POLL_SECONDS)
    return len(ended)
