"""Programs that may hang: run with a time limit, and with all that they started ended with them. Standard library only."""

import contextlib
import os
import signal
import subprocess

TIMED_OUT = 124  # as timeout(1) says
KILL_SECONDS = 10  # a process that a driver does not let go is not waited for longer


def run(command, seconds, environment=None, output=subprocess.PIPE):
    """(exit code, output and errors in one text). `output`: a file that gets them instead, as they come."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                               text=True, errors="replace", env=environment, start_new_session=True)
    try:
        text, _ = process.communicate(timeout=seconds)
        return process.returncode, text or ""
    except subprocess.TimeoutExpired:
        _end_group(process)
        text = ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            text, _ = process.communicate(timeout=KILL_SECONDS)
        return TIMED_OUT, text or ""
    except BaseException:
        _end_group(process)
        raise


def _end_group(process):
    """Ends a process that leads its session, and whatever of that still lives."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
