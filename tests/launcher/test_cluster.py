"""Starting, watching and stopping processes, with stand-ins for the binaries."""

import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from tools.launcher import cluster, ports, processes
from tools.launcher.failure import Failure


def start(**how):
    return cluster.start(cluster.Shape("model.gguf", port=0, **how))


def gone(pids):
    return all(processes.start_ticks(pid) is None for pid in pids)


def test_starts_every_process_remembers_it_and_stops_it(stand_ins):
    instance = start()
    assert [process.name for process in instance.processes] == ["prefill-0", "prefill-1", "decode-0", "decode-1", "router"]
    assert cluster.get(instance.http, "/readyz")[0] == 200
    (remembered,) = processes.load_instances()
    assert [(p.role, p.pid, p.address) for p in remembered.processes] == [
        (p.role, p.pid, p.address) for p in instance.processes
    ]
    assert remembered.attended() and not remembered.dead()
    pids = [process.pid for process in instance.processes]
    assert instance.stop() == []
    assert gone(pids)
    assert processes.load_instances() == []


def test_a_standalone_is_one_process(stand_ins):
    instance = start(standalone=True)
    assert [process.role for process in instance.processes] == ["standalone"]
    instance.stop()


def test_a_worker_that_dies_at_start_is_named_and_the_rest_is_stopped(stand_ins, home):
    stand_ins("decode", die="cannot map the model")
    with pytest.raises(Failure) as caught:
        start()
    assert "decode-" in caught.value.what and "exit code 1" in caught.value.what
    assert "cannot map the model" in caught.value.why
    assert processes.load_instances() == []
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False).stdout
    assert str(home / "bin") not in listing


def test_a_death_later_is_seen_with_its_signal(stand_ins):
    instance = start()
    try:
        assert instance.dead() == []
        victim = instance.processes[2]
        os.kill(victim.pid, signal.SIGKILL)
        victim.child.wait()
        assert [process.name for process in instance.dead()] == ["decode-0"]
        assert "SIGKILL" in victim.died("while serving").what
    finally:
        instance.stop()


def test_one_that_ignores_sigterm_is_killed_and_named(stand_ins, monkeypatch):
    stand_ins("prefill", stubborn=True)
    instance = start(prefill=1, decode=1)
    pids = [process.pid for process in instance.processes]
    assert processes.stop(instance.processes, grace_seconds=0.3) == ["prefill-0"]
    assert gone(pids)


def test_a_recycled_process_id_is_never_signalled(stand_ins, home):
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        stranger = processes.Process("decode", "decode-0", bystander.pid, processes.start_ticks(bystander.pid) - 1, "", str(home / "x"))
        assert not stranger.alive()
        processes.stop([stranger])
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_processes_stop_when_the_launcher_is_killed(stand_ins, home):
    code = (
        "import sys, pathlib, time\n"
        "from tools.launcher import build, cluster, paths\n"
        f"home = pathlib.Path({str(home)!r})\n"
        "paths.RUN, paths.LOGS = home / 'run', home / 'logs'\n"
        "build.binary = lambda name, preset='release': home / 'bin' / name\n"
        "instance = cluster.start(cluster.Shape('m', port=0))\n"
        "print(*[p.pid for p in instance.processes], flush=True)\n"
        "time.sleep(60)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in launcher.stdout.readline().split()]
    assert len(pids) == 5
    descriptors = [os.pidfd_open(pid) for pid in pids]
    launcher.kill()
    launcher.wait()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 10)[0]
        os.close(descriptor)


def test_a_taken_port_is_named_with_its_holder_and_a_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Failure) as caught:
            ports.require_free(port)
    assert str(port) in caught.value.what
    assert f"pid {os.getpid()}" in caught.value.why
    assert "--port " in caught.value.fix
