"""Programs that may hang: run with a time limit, and with all that they started ended with them. Standard library only."""

import os
import signal
import subprocess

TIMED_OUT = 124  # as timeout(1) says


def run(command, seconds, environment=None, output=subprocess.PIPE):
    """(exit code, output and errors in one text). `output`: a file that gets them instead, as they come."""
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                          text=True, errors="replace", env=environment, start_new_session=True) as process:
        try:
            text, _ = process.communicate(timeout=seconds)
            code = process.returncode
        except subprocess.TimeoutExpired:
            end_group(process)
            text, _ = process.communicate()
            code = TIMED_OUT
        except BaseException:
            end_group(process)
            raise
    return code, text or ""


def end_group(process):
    """Ends a process that leads its session, and whatever of that still lives."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
