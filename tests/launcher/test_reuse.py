"""What runs already is used again only where it is what was asked for."""

import dataclasses
import os
import socket

import pytest

from tools.launcher import build, cluster, commands, processes
from tools.launcher.failure import Failure
from tools.launcher.progress import Progress

CHANGES = {
    "model": {"model": "other.gguf"},
    "backend": {"worker_flags": ("--backend=cpu",)},
    "gpus": {"gpus": 1},
    "threads": {"threads": 7},
    "prefill": {"prefill": 2},
    "standalone": {"standalone": True},
    "name": {"served_name": "other"},
}


@pytest.fixture
def shape(stand_ins):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    yield cluster.Shape("model.gguf", prefill=1, decode=1, threads=1, port=port, detached=True, worker_flags=("--backend=auto",))
    for instance in processes.load_instances():
        instance.stop()


def pids(instance):
    return [process.pid for process in instance.processes]


def ask(shape):
    return commands._start_or_reuse(Progress(), shape)


def test_the_same_is_used_again(shape):
    first, started = ask(shape)
    assert started
    again, started = ask(dataclasses.replace(shape, detached=False))  # who watches it is no matter
    assert not started and pids(again) == pids(first)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_another_one_takes_its_place(shape, change, capsys):
    first, _ = ask(shape)
    second, started = ask(dataclasses.replace(shape, **change))
    assert started
    assert all(processes.start_ticks(pid) is None for pid in pids(first))
    assert pids(processes.load_instances()[0]) == pids(second)
    assert f"{next(iter(change))} " in capsys.readouterr().out


def test_new_binaries_take_the_place_of_old_ones(shape):
    ask(shape)
    os.utime(build.binary("longhaul_decode"), (1, 1))
    assert ask(shape)[1]


def test_what_somebody_else_holds_is_left_alone_and_the_difference_told(shape):
    first, _ = ask(shape)
    first.launcher_pid, first.launcher_ticks = os.getpid(), processes.start_ticks(os.getpid())
    first.save()
    assert not ask(shape)[1]
    with pytest.raises(Failure) as caught:
        ask(dataclasses.replace(shape, worker_flags=("--backend=cpu",)))
    assert f"pid {os.getpid()}" in caught.value.what
    assert "--backend=auto instead of --backend=cpu" in caught.value.why
    assert not first.dead()
