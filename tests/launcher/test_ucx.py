"""Fetching the UCX that knows GPUs: only where there are some, once for each version, never half; and building against it."""

import dataclasses
import io
import subprocess

import pytest

from tools.launcher import build, cluster, doctor, paths, python, ucx
from tools.launcher.failure import Failure
from tools.launcher.progress import Progress

LAPTOP = doctor.Machine("Debian 12", "bookworm", 2, 8 << 30, ("AVX2",), nvcc=False, gpus=0)
GPU_MACHINE = dataclasses.replace(LAPTOP, nvcc=True, gpus=1)


@pytest.fixture
def pip(home, monkeypatch):
    """A pip that delivers a package, or fails half-way; lists what it was asked for."""
    asked = []

    def install(arguments, what_for, watch=None):
        asked.append(arguments)
        folder = paths.make(paths.UCX / "part" / "libucx" / "lib")
        if install.fails:
            raise Failure("no network", "", "")
        (folder / "libucp.so").write_text("")

    install.fails, install.asked = False, asked
    monkeypatch.setattr(python, "ensure_venv", lambda step: None)
    monkeypatch.setattr(python, "pip", install)
    return install


def ensure(machine):
    screen = io.StringIO()
    ucx.ensure(Progress(screen, tty=False), machine)
    return screen.getvalue()


@pytest.mark.parametrize("machine", [LAPTOP, dataclasses.replace(LAPTOP, gpus=1), dataclasses.replace(LAPTOP, nvcc=True)])
def test_without_a_gpu_or_nvcc_nothing_is_said_or_done(pip, machine):
    assert ensure(machine) == "" and pip.asked == [] and ucx.found() is None
    assert machine.line().endswith("-> CPU backend")


def test_it_is_fetched_once(pip):
    ensure(GPU_MACHINE)
    assert (ucx.found() / "lib" / "libucp.so").exists() and ucx.found().is_relative_to(paths.UCX)
    assert "skipped" in ensure(GPU_MACHINE)
    ((*_, file),) = pip.asked
    assert "--require-hashes" in pip.asked[0] and "--hash=sha256:" in open(file, encoding="utf-8").read()
    assert GPU_MACHINE.line().endswith("1 GPU, CUDA toolkit -> CUDA backend")


def test_half_a_package_is_none(pip):
    pip.fails = True
    with pytest.raises(Failure):
        ensure(GPU_MACHINE)
    assert ucx.found() is None
    pip.fails = False
    ensure(GPU_MACHINE)
    assert ucx.found()


def test_another_version_is_fetched_anew(pip, home, monkeypatch):
    ensure(GPU_MACHINE)
    newer = home / "gpu_requirements.txt"
    newer.write_text("libucx-cu13==9 --hash=sha256:00\n")
    monkeypatch.setattr(ucx, "REQUIREMENTS", newer)
    assert ucx.found() is None


def test_a_build_is_configured_again_when_ucx_has_come(pip, home, monkeypatch):
    commands = []

    def run(command, **how):
        commands.append(command)
        (home / "build" / "release" / "build.ninja").write_text("")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(paths, "BUILD", home / "build")
    monkeypatch.setattr(build.subprocess, "run", run)
    paths.make(paths.BUILD / "release")

    def configure():
        screen = Progress(io.StringIO(), tty=False)
        with screen.step("build") as step:
            build._configure("release", step, io.StringIO())

    configure()
    configure()
    assert [command[-1] for command in commands] == ["-DLONGHAUL_UCX_DIR="]
    ensure(GPU_MACHINE)
    configure()
    configure()
    assert [command[-1] for command in commands[1:]] == [f"-DLONGHAUL_UCX_DIR={ucx.found()}"]


@pytest.mark.parametrize("gpus, devices, share", [(1, [0, 0, 0, 0], 0.225), (2, [0, 1, 0, 1], 0.45), (3, [0, 1, 2, 0], 0.45), (8, [0, 1, 2, 3], 0.9)])
def test_workers_share_the_gpus(gpus, devices, share):
    shape = cluster.Shape("model", prefill=2, decode=2, gpus=gpus)
    flags = [shape.gpu_flags(worker) for worker in range(4)]
    assert flags == [(f"--device={device}", f"--gpu_memory_share={share:.3f}") for device in devices]


def test_without_gpus_workers_get_no_such_flags():
    assert cluster.Shape("model").gpu_flags(0) == ()
