"""The Debian packages that Longhaul needs, and their installation. Installs what is missing, touches nothing else."""

import os
import re
import shutil
import subprocess
import sys
import time

from tools.launcher import paths
from tools.launcher.failure import Failure

# package -> what for. The why of each choice is in docs/DEPENDENCIES.md.
BUILD = {
    "g++": "compiler",
    "cmake": "build description",
    "ninja-build": "build",
    "ccache": "second builds in seconds",
    "pkg-config": "finding libraries",
    "libabsl-dev": "strings, status, flags, hash maps",
    "libprotobuf-dev": "messages",
    "protobuf-compiler": "messages",
    "libgrpc++-dev": "control plane",
    "protobuf-compiler-grpc": "control plane",
    "libboost1.81-dev": "HTTP server (Asio, Beast)",
    "libboost-json1.81-dev": "JSON",
    "libpcre2-dev": "pre-tokenizer patterns",
    "libutf8proc-dev": "Unicode normalization",
    "libdnnl-dev": "matrix products on the CPU",
    "libxxhash-dev": "hashes of blocks and transfers",
    "libspdlog-dev": "logs",
    "libfmt-dev": "logs",
    "prometheus-cpp-dev": "metrics",
    "libucx-dev": "KV transfer",
    "libgtest-dev": "unit tests",
    "libgmock-dev": "unit tests",
    "libbenchmark-dev": "benchmarks",
    "python3-venv": "a private Python under .longhaul/",
}
TEST = {
    "clang-format": "the tidy test",
    "ucx-utils": "naming UCX's transports",
    "git": "listing the files to tidy",
}
APT_LOCK_SECONDS = 300
APT_POLL_SECONDS = 0.2


def installed(names):
    """The subset of `names` that dpkg has fully installed."""
    query = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\n", *names]
    listing = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return {line.split("\t")[1] for line in listing.splitlines() if line.startswith("ii ")}


def missing(wanted):
    present = installed(wanted)
    return [name for name in wanted if name not in present]


def _may_install(names, yes, as_root):
    if yes or (as_root and not sys.stdin.isatty()):
        return
    command = f"apt-get install {' '.join(names)}"
    if not sys.stdin.isatty():
        raise Failure(
            f"{len(names)} Debian packages are missing",
            "there is no terminal to ask for your leave to install them with sudo",
            f"run again with --yes, or as root: {command}",
        )
    answer = input(f"          install {len(names)} packages from Debian? [Y/n] ").strip().lower()
    if answer not in ("", "y", "yes"):
        raise Failure("packages are missing, and you chose not to install them", "", f"as root: {command}")


def _apt(arguments, prefix, step):
    """Runs apt-get, whose status lines come between its words; raises Failure with the words that tell why."""
    command = prefix + [
        "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C",
        "apt-get", "-q", "-o", f"DPkg::Lock::Timeout={APT_LOCK_SECONDS}", "-o", "APT::Status-Fd=1", "-o", "Dpkg::Use-Pty=0", *arguments,
    ]
    log_path = paths.make(paths.LOGS) / "apt.log"
    # Into a file, not a pipe: a package's script fails when its words cannot be written (seen with ccache's, through a pipe).
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    with open(log_path, encoding="utf-8", errors="replace") as words:
        ended = False
        while not ended:
            ended = process.poll() is not None  # asked before reading, so that the last words are read too
            for line in words:
                fields = line.rstrip("\n").split(":", 3)
                if len(fields) == 4 and fields[0] in ("dlstatus", "pmstatus") and arguments[0] == "install":
                    # Download is the first half of the way, unpacking and configuring the second.
                    share = float(fields[2]) / 200 + (0.5 if fields[0] == "pmstatus" else 0)
                    step.update(fields[3], share)
            if not ended:
                time.sleep(APT_POLL_SECONDS)
    if process.returncode != 0:
        output = log_path.read_text(encoding="utf-8", errors="replace")
        if "No space left on device" in output or "enough free space" in output:
            raise paths.disk_full("/")
        # These lines say what failed; without any the last ones must do.
        errors = re.findall(r"^(?:E:|Err:|dpkg: error|pmerror:).*", output, re.MULTILINE) or output.splitlines()
        raise Failure(
            f"apt-get {arguments[0]} failed",
            "\n".join(errors[-5:]),
            f"mend what it names (all of it is in {log_path}), then run the same command again",
        )


def ensure(progress, wanted, yes):
    """Installs the missing ones of `wanted`, asking first unless `yes` or nobody is there to ask."""
    with progress.step("packages") as step:
        names = missing(wanted)
        if not names:
            step.skip(f"{len(wanted)} Debian packages are installed")
            return
        as_root = os.geteuid() == 0
        if not as_root and shutil.which("sudo") is None:
            raise Failure(
                f"{len(names)} Debian packages are missing",
                "installing them needs root, and there is no sudo",
                f"as root: apt-get install {' '.join(names)}",
            )
        step.note(f"{len(wanted) - len(names)} present, {len(names)} to install:")
        for name in names:
            step.note(f"  {name:<24} {wanted[name]}")
        _may_install(names, yes, as_root)
        prefix = [] if as_root else ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
        # An apt-get that was killed half-way leaves packages unpacked and not configured; nothing to do otherwise.
        subprocess.run([*prefix, "dpkg", "--configure", "-a"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        step.update("reading Debian's package lists")
        _apt(["update"], prefix, step)
        _apt(["install", "-y", "--no-install-recommends", *names], prefix, step)
        left = missing(wanted)
        if left:
            raise Failure(f"apt-get left out {', '.join(left)}", "dpkg does not list them as installed",
                          f"as root: apt-get install {' '.join(left)}")
        step.done(f"{len(names)} installed")
