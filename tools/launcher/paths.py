"""Where everything lies. All that the launcher makes is under .longhaul/ and build/, both git-ignored."""

import os
import pathlib
import shutil

from tools.launcher.failure import Failure

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = ROOT / ".longhaul"
MODELS = HOME / "models"
DOWNLOADS = HOME / "downloads"
VENV = HOME / "venv"
UCX = HOME / "ucx"
LOGS = HOME / "logs"
RUN = HOME / "run"
EXPECTED = HOME / "expected"
REPORTS = HOME / "reports"
BUILD = ROOT / "build"


def make(folder):
    """Creates `folder` and its parents; returns it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"cannot create {folder}", str(error), "free space or fix the folder's owner") from error
    return folder


def write_atomically(path, text):
    """A reader sees the old text or the new, never a part; a full disk leaves the old."""
    make(path.parent)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def require_space(folder, bytes_needed, what_for):
    """Fails early, with both numbers, where a step is sure to run out of disk half-way."""
    free = shutil.disk_usage(make(folder)).free
    if free < bytes_needed:
        raise Failure(
            f"not enough disk space for {what_for}",
            f"{folder} has {free / 1e6:,.0f} MB free; {bytes_needed / 1e6:,.0f} MB are needed",
            "free some space, then run the same command again: finished steps are kept",
        )


def disk_full(folder):
    """The Failure for a disk that filled up in the middle of a step."""
    free = shutil.disk_usage(folder).free
    return Failure(
        "the disk is full",
        f"{folder} has {free / 1e6:,.1f} MB free",
        "free some space, then run the same command again: finished steps are kept, half-written files are gone",
    )
