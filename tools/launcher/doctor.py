"""What this machine is, in one line, and whether Longhaul can run on it at all."""

import os
import pathlib
import platform
import shutil
from dataclasses import dataclass

from tools.launcher.failure import Failure


@dataclass(frozen=True)
class Machine:
    system: str  # "Debian 12"
    codename: str  # "bookworm"
    cores: int
    memory_bytes: int
    instruction_sets: tuple  # of ("AVX2", "AVX-512", "AMX")
    nvcc: bool
    gpus: int

    @property
    def usable_gpus(self):
        """GPUs that what is built here will compute on."""
        return self.gpus if self.nvcc else 0

    def line(self):
        sets = f" ({', '.join(self.instruction_sets)})" if self.instruction_sets else ""
        gpu = f"{self.gpus} GPU" + ("s" if self.gpus != 1 else "") if self.gpus else "no GPU"
        toolkit = ", CUDA toolkit" if self.nvcc else ""
        backend = "CUDA backend" if self.usable_gpus else "CPU backend"
        return (
            f"{self.system}, {self.cores} core{'s' if self.cores != 1 else ''}{sets}, "
            f"{self.memory_bytes / 2**30:.0f} GiB, {gpu}{toolkit} -> {backend}"
        )


def _os_release():
    facts = {}
    try:
        for line in pathlib.Path("/etc/os-release").read_text().splitlines():
            key, _, value = line.partition("=")
            facts[key] = value.strip('"')
    except OSError:
        pass
    return facts


def _cpu_flags():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def look():
    """Reads the machine; changes nothing."""
    release = _os_release()
    flags = _cpu_flags()
    known = (("AVX2", "avx2"), ("AVX-512", "avx512f"), ("AMX", "amx_bf16"))
    return Machine(
        system=f"{release.get('NAME', platform.system()).split()[0]} {release.get('VERSION_ID', '')}".strip(),
        codename=release.get("VERSION_CODENAME", ""),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        instruction_sets=tuple(name for name, flag in known if flag in flags),
        nvcc=shutil.which("nvcc") is not None,
        gpus=len(list(pathlib.Path("/proc/driver/nvidia/gpus").glob("*"))),
    )


def check(progress):
    """Prints the line; fails where nothing that follows could work."""
    with progress.step("doctor") as step:
        machine = look()
        if platform.machine() != "x86_64":
            raise Failure(
                f"this processor is {platform.machine()}",
                "the CPU kernels are written for x86-64 with AVX2",
                "use an x86-64 machine",
            )
        if "AVX2" not in machine.instruction_sets:
            raise Failure(
                "this processor has no AVX2",
                "the CPU kernels need AVX2 and FMA (2013 and later)",
                "use a newer machine, or give this virtual machine its host's processor model",
            )
        if shutil.which("apt-get") is None:
            raise Failure(
                f"{machine.system} has no apt-get",
                "Longhaul builds against Debian 12's libraries and installs what is missing with apt-get",
                "use Debian 12, or a Debian 12 container",
            )
        if machine.codename and machine.codename != "bookworm":
            step.note(f"{machine.system} is untried: Longhaul is built and tested on Debian 12")
        step.done(machine.line(), timed=False)
    return machine
