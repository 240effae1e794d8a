"""The UCX that carries KV caches between processes on GPUs, from PyPI into .longhaul/ucx; Debian's knows no GPU's memory."""

import hashlib
import shutil

from tools.launcher import paths, python

REQUIREMENTS = paths.ROOT / "tools" / "launcher" / "gpu_requirements.txt"
BYTES_NEEDED = 250_000_000


def _home():
    """A folder for each content of the requirements, so that another version never lies in an old one's place."""
    return paths.UCX / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]


def found():
    """The folder to build against; None where it was not fetched."""
    folder = _home() / "libucx"
    return folder if folder.exists() else None


def ensure(progress, machine):
    """Fetches it where workers will compute on GPUs; elsewhere nothing is said or done."""
    if not machine.usable_gpus:
        return
    with progress.step("ucx") as step:
        if found():
            step.skip("libucx-cu13 is in .longhaul/ucx")
            return
        paths.require_space(paths.UCX, BYTES_NEEDED, "libucx-cu13")
        python.ensure_venv(step)
        step.update("fetching libucx-cu13 into .longhaul/ucx")
        scratch = paths.UCX / "part"
        shutil.rmtree(scratch, ignore_errors=True)
        python.pip(["install", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes", "--target", str(scratch), "-r",
                    str(REQUIREMENTS)], "libucx-cu13")
        scratch.rename(_home())
        step.done("libucx-cu13, for KV caches in GPU memory")
