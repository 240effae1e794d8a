"""Configures and builds with CMake and Ninja; shows Ninja's count as progress."""

import hashlib
import re
import subprocess
import time

from tools.launcher import paths, ucx
from tools.launcher.failure import Failure

SERVING = ("longhaul_prefill", "longhaul_decode", "longhaul_router", "longhaul_standalone")
BYTES_NEEDED = 1_000_000_000
BYTES_PER_COMPILER = 1_500_000_000
COUNT = re.compile(r"^\[(\d+)/(\d+)\] (.*)")
ERROR_LINES = 40
COMMAND_CHARS = 600


def binary(name, preset="release"):
    return paths.BUILD / preset / "bin" / name


def _configure(preset, step, log):
    folder = paths.BUILD / preset
    stamp = folder / "configured.sha256"
    ucx_folder = str(ucx.found() or "") if preset == "release" else ""
    digest = hashlib.sha256((paths.ROOT / "CMakePresets.json").read_bytes() + ucx_folder.encode()).hexdigest()
    # Ninja itself configures again when a CMakeLists.txt changes; it does not look at the presets and at these settings.
    if (folder / "build.ninja").exists() and stamp.exists() and stamp.read_text() == digest:
        return
    step.update("configuring")
    result = subprocess.run(
        ["cmake", "--preset", preset, "-Uucx_DIR", f"-DLONGHAUL_UCX_DIR={ucx_folder}"],
        cwd=paths.ROOT, capture_output=True, text=True, check=False,
    )
    log.write(result.stdout + result.stderr)
    if result.returncode != 0:
        raise _failure("cmake could not configure the build", result.stdout + result.stderr, log.name)
    stamp.write_text(digest)


def _failure(what, output, log_name):
    if "No space left on device" in output:
        return paths.disk_full(paths.BUILD)
    return Failure(what, "\n".join(output.strip().splitlines()[-ERROR_LINES:]), f"all of it is in {log_name}")


def _jobs(machine):
    return max(1, min(machine.cores, machine.memory_bytes // BYTES_PER_COMPILER))


def run(progress, machine, targets, preset="release", name="build"):
    """Builds `targets` of a preset. Keeps what an interrupted build has finished."""
    with progress.step(name) as step:
        paths.make(paths.BUILD)
        log_path = paths.make(paths.LOGS) / f"build-{preset}.log"
        with open(log_path, "w", encoding="utf-8") as log:
            if not (paths.BUILD / preset / "build.ninja").exists():
                paths.require_space(paths.BUILD, BYTES_NEEDED, "the build")
            _configure(preset, step, log)
            built = _ninja(preset, machine, targets, step, log)
        if built == 0:
            step.skip(f"build/{preset} is up to date")
        else:
            step.done(f"{built} steps in build/{preset}")


def _ninja(preset, machine, targets, step, log):
    command = ["ninja", "-C", str(paths.BUILD / preset), f"-j{_jobs(machine)}", *targets]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    started = time.monotonic()
    finished = 0
    tail = []
    try:
        for line in process.stdout:
            log.write(line)
            match = COUNT.match(line)
            if not match:
                # Ninja repeats the whole command of a failed step; the compiler's own words are what helps.
                if len(line) < COMMAND_CHARS:
                    tail.append(line)
                continue
            finished, total = int(match[1]), int(match[2])
            what = match[3].rsplit("/", 1)[-1].removesuffix(".o")
            # The first steps (messages, protobuf) tell little about the rest, so no early guess.
            eta = (time.monotonic() - started) / finished * (total - finished) if finished > 4 else None
            step.update(f"{finished}/{total} {what}", finished / total, eta)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.wait() != 0:
        first = next((i for i, line in enumerate(tail) if line.startswith("FAILED:")), 0)
        raise _failure("the build failed", "".join(tail[first:]), log.name)
    return finished
