"""The private Python under .longhaul/venv. The system's Python never gets a package."""

import hashlib
import os
import subprocess
import sys

from tools.launcher import paths
from tools.launcher.failure import Failure

PIP_TRIES = 3


def interpreter():
    return paths.VENV / "bin" / "python"


def ensure_venv(step):
    """Makes the venv, or makes it anew where an interrupted set-up left half of one."""
    works = interpreter().exists() and subprocess.run(
        [interpreter(), "-m", "pip", "--version"], capture_output=True, check=False
    ).returncode == 0
    if works:
        return
    step.update("making .longhaul/venv")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", paths.VENV], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        output = made.stdout + made.stderr
        if "No space left" in output:
            raise paths.disk_full(paths.make(paths.HOME))
        raise Failure("cannot make a private Python", output.strip()[-600:],
                      "install python3-venv, then run the same command again")


def pip(arguments, what_for, watch=None):
    """Runs pip in the venv, a few times over if the network fails. `watch()` is called while it runs."""
    scratch = paths.make(paths.DOWNLOADS / "tmp")
    environment = dict(os.environ, TMPDIR=str(scratch), PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    environment.pop("PYTHONPATH", None)
    _empty(scratch)  # a killed pip leaves its part behind
    output = ""
    for _ in range(PIP_TRIES):
        process = subprocess.Popen(
            [interpreter(), "-m", "pip", *arguments], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    if watch:
                        watch(scratch)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            _empty(scratch)
        if process.returncode == 0:
            return
        if "No space left on device" in output:
            raise paths.disk_full(paths.HOME)
        if "No matching distribution" in output and "retrying" not in output.lower():
            break
    raise Failure(
        f"pip could not fetch {what_for}",
        "\n".join(output.strip().splitlines()[-4:]),
        "check the network and pip's settings, then run the same command again",
    )


def _empty(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def ensure_requirements(progress, requirements, *options):
    """Installs `requirements` (a file) once for each content of it, with pip's `options`."""
    with progress.step("python") as step:
        stamp = paths.VENV / f"{requirements.stem}.sha256"
        digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
        if interpreter().exists() and stamp.exists() and stamp.read_text() == digest:
            step.skip(f"{requirements.relative_to(paths.ROOT)} is installed in .longhaul/venv")
            return
        ensure_venv(step)
        step.update(f"installing {requirements.relative_to(paths.ROOT)} into .longhaul/venv")
        pip(["install", "--quiet", "--no-cache-dir", "--prefer-binary", *options, "-r", str(requirements)],
            "the tests' Python packages")
        stamp.write_text(digest)
        step.done(".longhaul/venv has what the tests need")
