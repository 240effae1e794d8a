"""The two commands of the README, as a person runs them."""

import json
import os
import signal
import socket
import subprocess

import pytest

from tools.launcher import cluster, paths

LAUNCHER = paths.ROOT / "longhaul"
SECONDS = 240


def longhaul(*arguments, **options):
    return subprocess.run([LAUNCHER, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False, **options)


def status_on(port):
    rows = json.loads(longhaul("status", "--json").stdout)
    return [row for row in rows if row["port"] == port]


@pytest.fixture
def port():
    """A port that is free now, and stopped afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    yield free
    longhaul("down", "--port", str(free))


def test_up_detached_drives_verifies_and_stays_until_down(model_path, port):
    up = longhaul("up", "--detach", "--port", str(port))
    assert up.returncode == 0, up.stdout + up.stderr
    assert "replies equal to the standalone run" in up.stdout
    assert "\x1b" not in up.stdout and "\r" not in up.stdout
    rows = status_on(port)
    assert sorted(row["role"] for row in rows) == ["decode", "decode", "prefill", "prefill", "router"]
    assert all(row["state"] == "running" and row["pid"] > 0 and ":" in row["address"] for row in rows)
    assert cluster.get(f"127.0.0.1:{port}", "/readyz")[0] == 200

    again = longhaul("up", "--once", "--port", str(port))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "already runs" in again.stdout
    assert {row["pid"] for row in status_on(port)} == {row["pid"] for row in rows}

    down = longhaul("down", "--port", str(port))
    assert down.returncode == 0 and "stopped 5" in down.stdout
    assert status_on(port) == []


def test_up_once_leaves_nothing_running(model_path, port):
    up = longhaul("up", "--once", "--port", str(port))
    assert up.returncode == 0, up.stdout + up.stderr
    assert status_on(port) == []


def in_front(*arguments):
    """A launcher in the foreground, read until it says that it runs."""
    process = subprocess.Popen([LAUNCHER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith(" running"):
            return process
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_what_serve_started(model_path, port, how):
    process = in_front("serve", model_path, "--standalone", "--port", str(port))
    assert len(status_on(port)) == 1
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err
    assert status_on(port) == []


def test_a_worker_that_dies_ends_the_launcher_with_its_name(model_path, port):
    process = in_front("serve", model_path, "--prefill", "1", "--decode", "1", "--port", str(port))
    victim = next(row for row in status_on(port) if row["role"] == "decode")
    os.kill(victim["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "decode-0 died while serving (killed by SIGKILL)" in err
    assert status_on(port) == []


def test_a_taken_port_is_an_error_that_says_how_to_go_on():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = longhaul("up", "--once", "--port", str(port))
    assert up.returncode == 1
    assert f"port {port} is taken" in up.stderr and "fix:" in up.stderr and "--port" in up.stderr


def test_an_unknown_model_is_an_error_before_anything_starts():
    serve = longhaul("serve", "smolm2", "--port", "0")
    assert serve.returncode == 1
    assert "did you mean smollm2" in serve.stderr
